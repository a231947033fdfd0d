"""What was placed on an endpoint lately: how often, how much work, for how long."""

from __future__ import annotations

import math

MEMORY_SECONDS = 30.0
"""Placements fade with this time constant: long enough for a rate, short enough for a change of load."""

FRESH_SECONDS = 1.0
"""Means are worked out again after this time: they change by 3 % in it."""


class Demand:
    """Exponentially decayed sums of placements, and the rates that follow from them."""

    __slots__ = (
        "_at",
        "_began",
        "_count",
        "_fresh_until",
        "_seconds",
        "_work",
        "arrivals",
        "service",
        "work",
    )

    def __init__(self) -> None:
        self.arrivals = 0.0  # a second
        self.service = 0.0  # mean seconds of a prefill placed here; 0 where there was none
        self.work = 0.0  # tokens a second, weighed by the cost model, overheads left out
        self._count = self._seconds = self._work = 0.0
        self._at = self._fresh_until = self._began = float("-inf")

    def placed(self, work: float, seconds: float, now: float, age: float = 0.0) -> None:
        """One more prefill, of so much work, which should take so many seconds; placed `age` seconds ago."""
        self._fade(now)
        part = math.exp(-max(0.0, age) / MEMORY_SECONDS)
        self._count += part
        self._work += part * work
        self._seconds += part * seconds
        self._fresh_until = now

    def refresh(self, now: float) -> None:
        """Bring the rates up to `now`."""
        if now < self._fresh_until:
            return
        self._fade(now)
        self._fresh_until = now + FRESH_SECONDS
        # A process that began lately has not had the whole memory to gather its sums in.
        seen = MEMORY_SECONDS * (1 - math.exp(-max(FRESH_SECONDS, now - self._began) / MEMORY_SECONDS))
        self.arrivals = self._count / seen
        self.work = self._work / seen
        self.service = self._seconds / self._count if self._count > _NOTHING else 0.0

    def _fade(self, now: float) -> None:
        if self._began == float("-inf"):
            self._began = self._at = now
        left = math.exp(-max(0.0, now - self._at) / MEMORY_SECONDS)
        self._count *= left
        self._work *= left
        self._seconds *= left
        self._at = max(self._at, now)


_NOTHING = 0.01  # of a placement: what is left of one after two minutes tells no mean
