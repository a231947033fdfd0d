"""How far the demo is, on stderr: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

PLAIN_EVERY_SECONDS = 5.0
"""Between two plain lines: enough to see that it lives, few enough for a CI log."""


class DemoProgress(Protocol):
    """What the phases tell while they run; a context manager."""

    def __enter__(self) -> Self:
        """Start showing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def say(self, line: str) -> None:
        """One line of news."""

    def begin(self, phase: str, seconds: float) -> None:
        """The load of a phase starts and goes on for `seconds`."""

    def advance(self, passed: float, requests: int, failed: int) -> None:
        """The phase has run for `passed` seconds and so many requests are over."""


def progress_on(console: Console) -> DemoProgress:
    """Live bars where `console` is a terminal, else plain lines."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """A line when a phase begins and every PLAIN_EVERY_SECONDS."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, phase: str, seconds: float) -> None:
        """Name the phase."""
        self._phase, self._next = phase, PLAIN_EVERY_SECONDS
        self.say(f"{phase}: driving the load for {seconds:.0f} s")

    def advance(self, passed: float, requests: int, failed: int) -> None:
        """A line, if the last was long enough ago."""
        if passed >= self._next:
            self._next = passed + PLAIN_EVERY_SECONDS
            self.say(f"{self._phase}: {passed:.0f} s, {requests} requests, {failed} failed")


class LiveProgress:
    """A bar for each phase."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.fields[requests]:>6} requests {task.fields[failed]:>3} failed"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._bars.console.print(line, markup=False, highlight=False)

    def begin(self, phase: str, seconds: float) -> None:
        """Add the phase's bar."""
        self._task = self._bars.add_task(phase, total=seconds, requests=0, failed=0)

    def advance(self, passed: float, requests: int, failed: int) -> None:
        """Move the phase's bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=passed, requests=requests, failed=failed)
