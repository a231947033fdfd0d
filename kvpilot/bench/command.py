"""`kvpilot bench picker`: its options, its rounds, and its result as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from kvpilot.bench.arms import ECHOED, PICKED, PLAIN
from kvpilot.bench.cases import LARGEST_FLEET, LARGEST_PROMPT, MODES, TRANSPORTS, cases
from kvpilot.bench.figures import Round, Steady, summary
from kvpilot.bench.site import BenchSite

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kvpilot.bench.cases import Case, Site

RATE = 200.0
"""Requests a second of the steady phase."""

CONNECTIONS = 16
"""Requests at once under saturation: more than two cores can work on."""

WARM_SECONDS = 1.0
"""Before the first round: connections made, conversations known, rates learned."""

_SLICE_SECONDS = 0.5
"""Of the steady phase: the picker and the plain route take turns so often that both see the same machine."""

_PLAIN_WIDTH = 120  # characters; a pipe or a file has no width of its own

_LARGEST_ROUNDS, _LONGEST_SECONDS = 100, 600.0
_COLUMNS = (
    ("bytes", "prompt_bytes", 0),
    ("ends", "endpoints", 0),
    ("mode", "mode", 0),
    ("by", "transport", 0),
    ("req/s", "rps", 0),
    ("picker", "picker_cpu_us_per_request", 0),
    ("echo", "echo_cpu_us_per_request", 0),
    ("ratio", "vs_echo", 2),
    ("Envoy", "envoy_cpu_us_per_request", 0),
    ("p50", "added_p50_ms", 2),
    ("p95", "added_p95_ms", 2),
    ("p99", "added_p99_ms", 2),
    ("MB", "rss_mb", 0),
)
"""Heading, figure and decimals. CPU in microseconds a request, added latency in ms."""


def add_to(
    commands: argparse._SubParsersAction[Any], run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """Add the command to the parser; `run` runs its work to the end or to the first signal."""
    bench = commands.add_parser("bench", help="measure what kvpilot costs")
    kinds = bench.add_subparsers(dest="bench", required=True, metavar="WHAT")
    picker = kinds.add_parser("picker", help="CPU and latency that steering adds, through a real Envoy")
    picker.set_defaults(run=lambda options: run(bench_picker(options)))
    picker.add_argument(
        "--prompt-bytes", type=_counts(64, LARGEST_PROMPT), metavar="N,…", help="prompt sizes"
    )
    picker.add_argument("--endpoints", type=_counts(1, LARGEST_FLEET), metavar="N,…", help="fleet sizes")
    picker.add_argument("--mode", type=_words(MODES), metavar="A,…", help=f"of {', '.join(MODES)}")
    picker.add_argument(
        "--transport", type=_words(TRANSPORTS), metavar="A,…", help=f"of {', '.join(TRANSPORTS)}"
    )
    picker.add_argument("--all", dest="every", action="store_true", help="every size, fleet, mode, transport")
    picker.add_argument(
        "--seconds", type=_number(0.5, _LONGEST_SECONDS), default=6.0, help="of each arm in each phase: 6"
    )
    picker.add_argument("--rounds", type=_count(1, _LARGEST_ROUNDS), default=3, help="turns of each arm: 3")
    picker.add_argument("--json", dest="as_json", action="store_true", help="JSON on stdout")


async def bench_picker(options: argparse.Namespace) -> None:
    """Measure the cases that `options` choose and print them. Raises KvpilotError."""
    chosen = cases(
        options.prompt_bytes, options.endpoints, options.mode, options.transport, every=options.every
    )
    rows: list[dict[str, Any]] = []
    site: Site | None = None
    async with AsyncExitStack() as stack:
        for number, case in enumerate(chosen, 1):
            if case.site != site:
                await stack.aclose()
                mesh = await stack.enter_async_context(BenchSite(case.site, _say))
                site = case.site
            _say(f"case {number} of {len(chosen)}: {case}")
            rows.append(await _measure(mesh, case, options.seconds, options.rounds))
    if options.as_json:
        print(json.dumps({"cases": rows}, indent=2))
    else:
        console = Console()
        width = console.width if console.is_terminal else _PLAIN_WIDTH
        console.print(_table(rows), width=width)


async def _measure(mesh: BenchSite, case: Case, seconds: float, rounds: int) -> dict[str, Any]:
    for host in (PICKED, ECHOED, PLAIN):
        await mesh.saturated(host, case.prompt_bytes, min(WARM_SECONDS, seconds), CONNECTIONS)
    measured = [
        await _round(mesh, case.prompt_bytes, seconds / rounds, picker_first=n % 2 == 0)
        for n in range(rounds)
    ]
    return {
        "prompt_bytes": case.prompt_bytes,
        "endpoints": case.site.endpoints,
        "mode": case.site.mode,
        "transport": case.site.transport,
        **summary(measured),
        **await mesh.picker_state(),
    }


async def _round(mesh: BenchSite, prompt_bytes: int, seconds: float, *, picker_first: bool) -> Round:
    latencies: dict[str, list[float]] = {PICKED: [], PLAIN: []}
    slices = max(1, round(seconds / _SLICE_SECONDS))
    for n in range(slices):
        order = (PICKED, PLAIN) if (n % 2 == 0) == picker_first else (PLAIN, PICKED)
        for host in order:
            report = await mesh.steady(host, prompt_bytes, seconds / slices, RATE)
            latencies[host] += report.latencies_ms
    arms = (PICKED, ECHOED) if picker_first else (ECHOED, PICKED)
    spent = {host: await mesh.saturated(host, prompt_bytes, seconds, CONNECTIONS) for host in arms}
    return Round(Steady(tuple(latencies[PICKED]), tuple(latencies[PLAIN])), spent[PICKED], spent[ECHOED])


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, caption="picker, echo, Envoy: µs of CPU a request; p50 to p99: ms added"
    )
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(row[key], decimals) for _, key, decimals in _COLUMNS))
    return table


def _text(value: float | str, decimals: int) -> str:
    return value if isinstance(value, str) else f"{value:.{decimals}f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return parse


def _count(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 10) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _counts(least: int, most: int) -> Callable[[str], tuple[int, ...]]:
    one = _count(least, most)
    return lambda text: tuple(one(part.strip()) for part in text.split(","))


def _words(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(","))
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
        return words

    return parse
