"""Ends the process when its event loop is stuck, so that whatever it holds fails open.

A stuck loop answers no health check, but gRPC's own threads go on answering HTTP/2 pings: Envoy would wait on
for every request that is held here. A thread sees that the loop does not beat any more and ends the process
hard; connections break, Envoy fails open, and whoever supervises the process starts it again.
Where native code holds the interpreter's lock, that thread is stuck, too: faulthandler's own timer, which
needs no lock, ends the process then.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from ext_proc.watchdog import BEATS_MISSED, LoopWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_log = logging.getLogger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h: an error inside the program. 2 would say that it cannot start."""

LOCKED_FACTOR = 5
"""Times `stuck_seconds` until a process whose interpreter is locked ends. Longer, since this timer runs on in
a process that is frozen, and must not end one that is frozen for a moment."""

LAST_WORDS_SECONDS = 0.5
"""For the last log line: standard error may be what everything is stuck in."""

FRAMES = 12
"""Innermost calls that the last log line names."""


async def guard_loop(stuck_seconds: float) -> None:
    """For ever: end this process once the loop that runs this has not moved for `stuck_seconds`."""
    try:
        await Guard(stuck_seconds, last_words, faulthandler_timer(LOCKED_FACTOR * stuck_seconds)).run()
    finally:
        faulthandler.cancel_dump_traceback_later()


class Guard:
    """A thread that looks whether the loop moves in whose thread it is made, and in which `run` runs."""

    def __init__(
        self, stuck_seconds: float, end: Callable[[str], None], alive: Callable[[], None] = lambda: None
    ) -> None:
        """`end` gets what the loop is stuck in; `alive` is called at each look."""
        self._every = stuck_seconds / BEATS_MISSED
        self._seconds = stuck_seconds
        self._end = end
        self._alive = alive
        self._watch = LoopWatch()
        self._over = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._look_on, name="loop-guard", daemon=True)

    async def run(self) -> None:
        """Beat for ever, twice as often as is looked; the thread lives as long as this runs."""
        self._thread.start()
        try:
            while True:
                self._watch.beat()
                await asyncio.sleep(self._every / 2)
        finally:
            self._over.set()  # it wakes and ends by itself; joining it would block the loop

    def _look_on(self) -> None:
        while not self._over.wait(self._every):
            self._alive()
            if self._watch.look():
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented, for debuggers
                self._end(
                    f"the event loop has not moved for {self._seconds:g} s, so this process ends; it is at"
                    f" {where(frame)}"
                )
                return


def where(frame: FrameType | None) -> str:
    """The innermost calls, as `file:line function`, the last one first: no values, no text of the source."""
    if frame is None:
        return "(no frame)"
    calls = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=FRAMES, lookup_lines=False)
    return " < ".join(f"{call.filename}:{call.lineno} {call.name}" for call in calls)


def last_words(text: str) -> None:
    """Log `text` if that is possible at all, and end the process without any clean-up."""
    speaker = threading.Thread(target=_log.critical, args=("%s", text), daemon=True)
    speaker.start()
    speaker.join(LAST_WORDS_SECONDS)
    os._exit(EXIT_STATUS)


def faulthandler_timer(seconds: float) -> Callable[[], None]:
    """Each call gives the process another `seconds` to live."""

    def wind() -> None:
        faulthandler.dump_traceback_later(seconds, exit=True)

    wind()
    return wind
