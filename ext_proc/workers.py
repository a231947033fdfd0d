"""Several picker processes on one machine: each a replica of its own, with its own address and metrics page.

`python -m ext_proc -c FILE --workers N` starts N of them and keeps them: one that dies is started again, and
all end with the first process, however that ends. Worker n listens n ports above `picker_address` and
`picker_metrics` (sockets: `.n` after the path). All hash with one key, which they inherit through a pipe.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ext_proc import app
from fleet.errors import StartError
from fleet.prefix import KEY_BYTES_MAX
from fleet.process import main as run_process

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence

    from fleet.settings import Settings

WORKERS_MAX = 64

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
HEALTHY_SECONDS = 10.0
"""Before a dead worker is started again: doubling, and from the start after a life of so long."""

EARLY_SECONDS = 5.0
"""A first life that ends within this by saying that it cannot start, ends all."""

GRACE_SECONDS = 3.0
"""From SIGTERM to SIGKILL."""

CANNOT_START = 2
_ROOT = str(Path(__file__).resolve().parents[1])
_LIFELINE = "KVPILOT_WORKER_LIFELINE"
"""Environment variable: the descriptor of a pipe that brings the key, and whose end means: stop."""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run the picker as the arguments say; the exit status."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--workers", type=_number, help="picker processes; default: picker.workers of the file")
    own.add_argument("--worker", type=_number, help=argparse.SUPPRESS)  # how a worker is started
    options, passed_on = own.parse_known_args(arguments)
    if options.worker is not None:
        serve = partial(_work, number=options.worker)
    else:
        serve = partial(_serve, count=options.workers, passed_on=passed_on)
    return run_process("ext_proc", "kvpilot's endpoint picker for Envoy", serve, arguments, parents=(own,))


async def _serve(
    settings: Settings, source: str, stop: asyncio.Event, count: int | None, passed_on: Sequence[str]
) -> None:
    """One picker in this process, or several in others. Raises KvpilotError."""
    if count not in (None, settings.picker.workers):
        log.warning(
            "%d workers, and %s says picker.workers: %d: Envoy asks as many as its xDS server read there",
            count,
            source,
            settings.picker.workers,
        )
    count = count or settings.picker.workers
    if count == 1:
        await app.run(settings, source, stop)
        return
    key = await asyncio.to_thread(app.read_key, settings, source)
    try:
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(_keep(n, passed_on, _short(key))) for n in range(count)]
            await stop.wait()
            for task in keeping:
                task.cancel()
    except* StartError as errors:
        raise errors.exceptions[0] from None


async def _work(settings: Settings, source: str, stop: asyncio.Event, number: int) -> None:
    """One worker, until told to stop or its parent is gone. Raises KvpilotError."""
    lifeline = os.environ.get(_LIFELINE, "")
    if not lifeline.isdigit():
        raise StartError("--worker is for the workers that --workers starts")
    descriptor = int(lifeline)
    length = os.read(descriptor, 1)
    key = os.read(descriptor, length[0]) if length else b""
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, stop.set)
    try:
        await app.run(settings, source, stop, number, key)
    finally:
        loop.remove_reader(descriptor)


async def _keep(number: int, passed_on: Sequence[str], key: bytes) -> None:
    """Have one worker run for ever; cancel to end it. Raises StartError if it cannot start."""
    delay, lives = FIRST_DELAY_SECONDS, 0
    while True:
        born = time.monotonic()
        code = await _live(number, passed_on, key)
        lived = time.monotonic() - born
        if code == CANNOT_START and lives == 0 and lived < EARLY_SECONDS:
            raise StartError(f"worker {number} cannot start: it said why above")
        lives += 1
        delay = FIRST_DELAY_SECONDS if lived >= HEALTHY_SECONDS else delay
        log.warning("worker %d ended (%d); starting it again in %g s", number, code, delay)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)


async def _live(number: int, passed_on: Sequence[str], key: bytes) -> int:
    """One life of a worker; its exit status."""
    inherited, ours = os.pipe()
    try:
        os.write(ours, bytes([len(key)]) + key)
        try:
            process = await _spawn(number, passed_on, inherited)
        finally:
            os.close(inherited)
        try:
            return await process.wait()
        finally:
            await _end(process)
    finally:
        os.close(ours)


async def _spawn(number: int, passed_on: Sequence[str], descriptor: int) -> Process:
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH", ""))))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "ext_proc",
        *passed_on,
        "--worker",
        str(number),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(descriptor,),
        env={**os.environ, "PYTHONPATH": path, _LIFELINE: str(descriptor)},
    )


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _short(key: bytes) -> bytes:
    """The key as `PrefixHasher` uses it, which fits in a pipe."""
    return key if len(key) <= KEY_BYTES_MAX else hashlib.blake2b(key).digest()


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"expected 0 to {WORKERS_MAX}")
    return number
