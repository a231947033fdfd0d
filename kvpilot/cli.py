"""The `kvpilot` command: parse, run, end.

Exit codes: 0 for a normal end, which Ctrl-C and SIGTERM are too, except of a demo that has no result yet; 2
for a mistake or a failure that one line on stderr names. Nothing is left running after either.
While Python still imports, Ctrl-C just ends the process: nothing has been started then.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import uvloop

from fleet.errors import ConfigError, KvpilotError
from fleet.settings_file import load
from kvpilot import endpoint_picker_command, explain, sim_command
from kvpilot.bench import command as bench_command
from kvpilot.demo.phases import run_demo
from kvpilot.demo.report import PHASES
from kvpilot.live import Screen, show
from kvpilot.mesh import LocalMesh

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from fleet.settings import Settings


REDIS_VARIABLE = "KVPILOT_REDIS_URL"
"""Environment variable: an existing Redis to use in place of an embedded one."""

DEFAULT_FILE = Path(__file__).with_name("default.yaml")
_DEFAULT_SEED = 0
_FAILED = 2
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError("command line", "", None, message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
    except KvpilotError as error:
        print(f"kvpilot: {' '.join(str(error).split())}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        pass  # Ctrl-C when all is over but the loop
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run_up(options: argparse.Namespace) -> None:
    _check(options)
    settings = _settings(options)
    _run(_up(options, settings))


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(work))


def _parser() -> _Parser:
    parser = _Parser(prog="kvpilot", description="Steers LLM traffic to the pod that will answer first.")
    parser.add_argument("--version", action="version", version=f"kvpilot {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="run a mesh on this machine and show it until Ctrl-C")
    up.set_defaults(run=_run_up)
    up.add_argument(
        "-c", dest="config", type=Path, default=DEFAULT_FILE, metavar="kvpilot.yaml", help="your own backends"
    )
    up.add_argument("--port", type=_port, help="listen on this port in place of the file's")
    up.add_argument("--for", dest="duration", type=_duration, metavar="SECONDS", help="end after this time")
    up.add_argument("--json", dest="as_json", action="store_true", help="JSON on stdout, the rest on stderr")
    up.add_argument("--demo", type=_duration, metavar="SECONDS", help="compare policies, this long each")
    up.add_argument("--order", type=_order, metavar="A,B,C", help="the demo's phases in order")
    up.add_argument("--seed", type=int, help="the demo's random seed")
    sim_command.add_to(commands)
    bench_command.add_to(commands, _run)
    explain.add_to(commands)
    endpoint_picker_command.add_to(commands)
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError for options that would change nothing."""
    given = {"--order": options.order, "--seed": options.seed}
    if options.demo is None:
        for option, value in given.items():
            if value is not None:
                raise ConfigError("command line", "", None, f"{option} needs --demo SECONDS")
    elif options.duration is not None:
        raise ConfigError(
            "command line", "", None, "--for and --demo exclude each other: a demo ends by itself"
        )


def _settings(options: argparse.Namespace) -> Settings:
    settings = load(options.config)
    if options.port is None:
        return settings
    host = settings.listen.rpartition(":")[0]
    return settings.model_copy(update={"listen": f"{host}:{options.port}"})


async def _up(options: argparse.Namespace, settings: Settings) -> None:
    source = str(options.config)
    redis_url = os.environ.get(REDIS_VARIABLE) or None
    if options.demo is not None:
        await run_demo(
            settings,
            source,
            seconds=options.demo,
            order=options.order or PHASES,
            seed=_DEFAULT_SEED if options.seed is None else options.seed,
            redis_url=redis_url,
            as_json=options.as_json,
        )
        return
    await _show(options, settings, source, redis_url)


async def _show(options: argparse.Namespace, settings: Settings, source: str, redis_url: str | None) -> None:
    screen = Screen(as_json=options.as_json)
    mesh = LocalMesh(settings, source=source, redis_url=redis_url, announce=screen.announce)
    async with AsyncExitStack() as stack:
        with screen.starting():
            await stack.enter_async_context(mesh)
            await mesh.wait_ready()
        await show(mesh, screen, seconds=options.duration)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end; the first signal cancels it, and a second must not interrupt its clean-up."""
    task = asyncio.ensure_future(work)

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    for number in _ENDING_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelling():
            raise


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _order(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if sorted(names) != sorted(PHASES):
        raise argparse.ArgumentTypeError(f"{text!r} does not name each of {', '.join(PHASES)} once")
    return names


def _version() -> str:
    try:
        return importlib.metadata.version("kvpilot")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"
