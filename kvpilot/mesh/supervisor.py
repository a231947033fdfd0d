"""Children that are watched: started on a leash, named and restarted when they die, ended together.

Each child is one task that owns its process from before the fork until it is reaped, so cancelling the task
at any moment, half-way through a start too, ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import StartError
from kvpilot.mesh.log import ChildLog

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Mapping

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0
HEALTHY_SECONDS = 10.0  # a child that lived this long starts again at the first delay
START_SECONDS = 5.0  # exit code 2 within this time of the first start means: it cannot start
GRACE_SECONDS = 3.0  # from SIGTERM to SIGKILL
CANNOT_START = 2
LIVES_BEFORE_SETTLED = 3  # deaths of one child before the mesh ever served: more tries would not help

_LEASH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")))


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: a name for people, an absolute program with its arguments, and added environment."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Backoff:
    """How long to wait before each restart: doubling, from the start again after a healthy life."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY_SECONDS

    def after(self, lived: float) -> float:
        """Seconds to wait after a life of `lived` seconds."""
        if lived >= HEALTHY_SECONDS:
            self._next = FIRST_DELAY_SECONDS
        delay = self._next
        self._next = min(delay * 2, LONGEST_DELAY_SECONDS)
        return delay


def describe_exit(code: int) -> str:
    """An exit in words: `exited with code 1`, `was ended by SIGKILL`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class Child:
    """One supervised program. `restarts` counts its second and later lives.

    Once `settled` it is restarted for ever; before that it is given up after `LIVES_BEFORE_SETTLED`.
    """

    def __init__(self, program: Program, log: ChildLog, announce: Callable[[str], None]) -> None:
        self.name = program.name
        self.restarts = 0
        self.settled = False
        self.failure: StartError | None = None
        self._program = program
        self._log = log
        self._announce = announce
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it is not running."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    @property
    def last_line(self) -> str:
        """What it wrote last in this life, or the exception that ended it; empty if nothing."""
        return self._log.last_line()

    def said(self, text: str) -> str:
        """The last line of this life that has `text`, from there on; empty if there is none."""
        return self._log.find(text)

    async def live(self) -> None:
        """Run it for ever; returns only if it cannot start or does not stay up. Cancel to end it."""
        backoff = Backoff()
        while True:
            born = time.monotonic()
            ending, final = await self._one_life(born)
            if final:
                self.failure = StartError(_sentence(f"{self.name} cannot start", self.last_line))
                return
            if not self.settled and self.restarts + 1 >= LIVES_BEFORE_SETTLED:
                what = f"{self.name} does not stay up ({LIVES_BEFORE_SETTLED} starts; it {ending})"
                self.failure = StartError(_sentence(what, self.last_line))
                return
            delay = backoff.after(time.monotonic() - born)
            # Who was killed from outside said nothing about it: its last line would pass for the reason.
            reason = self.last_line if ending.startswith("exited") else ""
            self._announce(_sentence(f"{self.name} {ending}; restarting in {delay:g} s", reason))
            await asyncio.sleep(delay)
            self.restarts += 1

    async def _one_life(self, born: float) -> tuple[str, bool]:
        """How it ended, in words, and whether that means it can never start."""
        self._log.mark()
        try:
            process = self._process = await self._spawn()
        except OSError as error:
            return f"could not be forked ({error.strerror})", False
        try:
            code = await process.wait()
        finally:
            await _end(process)
        early = self.restarts == 0 and time.monotonic() - born < START_SECONDS
        return describe_exit(code), early and code == CANNOT_START

    async def _spawn(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *_LEASH,
            str(os.getpid()),
            *self._program.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._log.descriptor,
            stderr=self._log.descriptor,
            env={**os.environ, **self._program.environment},
            start_new_session=True,  # Ctrl-C is ours to handle; and a group to end as one
        )


class Supervisor:
    """Starts children in order and stops them in reverse. `announce` gets one line per unexpected exit."""

    def __init__(self, logs: Path, announce: Callable[[str], None]) -> None:
        """`logs`: an existing directory; each child writes `NAME.log` there."""
        self.children: dict[str, Child] = {}
        self._logs = logs
        self._announce = announce
        self._opened: list[ChildLog] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, program: Program) -> Child:
        """Begin to run a program; it has a pid a moment later. Raises StartError if it can have no log."""
        try:
            log = ChildLog(self._logs / f"{program.name}.log")
        except OSError as error:
            raise StartError(
                f"{program.name}: {error.filename} cannot be opened: {error.strerror}"
            ) from error
        self._opened.append(log)
        child = Child(program, log, self._announce)
        self.children[program.name] = child
        self._tasks.append(asyncio.create_task(child.live(), name=f"child {program.name}"))
        return child

    def check(self) -> None:
        """Raises StartError if a child cannot start or does not stay up."""
        for child in self.children.values():
            if child.failure is not None:
                raise child.failure

    def settle(self) -> None:
        """All children have worked together: whatever ends one from now on, it is worth restarting."""
        for child in self.children.values():
            child.settled = True

    async def stop(self) -> None:
        """End every child: SIGTERM in reverse order, SIGKILL after `GRACE_SECONDS`. May be called again."""
        tasks, self._tasks = self._tasks, []
        for task in reversed(tasks):
            task.cancel()
        if not tasks:
            return
        await asyncio.wait(tasks)
        while self._opened:
            self._opened.pop().close()
        for task in tasks:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                raise error


async def _end(process: Process) -> None:
    """Bring the process and its group to an end, whatever state they are in, and reap it."""
    try:
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            _signal_group(process, signal.SIGCONT)  # a stopped one hears SIGTERM only when it goes on
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
    except TimeoutError:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)  # also what it may have left of its own children
        await process.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _sentence(what: str, last_line: str) -> str:
    return f"{what}: {last_line}" if last_line else what
