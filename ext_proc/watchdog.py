"""Whether this picker should get requests: it has seen the fleet, and picks get through.

No clock, no I/O: what begins, what ends and `now` in; a standing out. Two ways of hanging are told apart.
A pick that hangs leaves the event loop free, and the picker says NOT_SERVING. A loop that is stuck can say
nothing: somebody outside of it counts its beats (`LoopWatch`) and ends the process.
"""

from __future__ import annotations

from enum import Enum

CALM_SECONDS = 2.0
"""After picks hung, nothing may hang for this long before requests come again. What hangs once does so again
at once, and each try costs somebody Envoy's whole message timeout."""

HANG_SHARE = 0.6
"""Of Envoy's message timeout: a pick must be found hanging before Envoy gives it up and takes it away."""

HOLD_GRACE_SECONDS = 1.0
"""A held request goes so much after its time at the latest: one late dispatch, and the way to Envoy."""

CONFIRM_LOOKS = 2
"""Looks in a row that must find picks hanging: right after one long computation all of them seem to."""

BEATS_MISSED = 8
"""Looks at a stuck loop's beats before it counts as stuck. Looks and not seconds: while a whole process is
frozen or starved nobody looks, and what comes back well must not be ended."""


class Standing(Enum):
    """What to tell those who ask for the picker's health."""

    STARTING = "no fleet state yet"
    SERVING = "serving"
    HANGING = "picks hang"


class UnderWay:
    """What was begun and has not ended, by any key of the caller's. Seconds on the caller's clock."""

    __slots__ = ("_ended_at", "_limit", "_since")

    def __init__(self, limit: float) -> None:
        """More than `limit` seconds is too long."""
        self._limit = limit
        self._since: dict[object, float] = {}  # in order of beginning, so the first is the oldest
        self._ended_at = float("-inf")  # the last that came to a good end

    def __len__(self) -> int:
        """How many."""
        return len(self._since)

    def began(self, key: object, now: float) -> None:
        """`key` is under way."""
        self._since[key] = now

    def ended(self, key: object, now: float) -> None:
        """`key` came to its end."""
        self._since.pop(key, None)
        self._ended_at = now

    def dropped(self, key: object) -> None:
        """`key` was given up by somebody else; where it has ended already, that changes nothing."""
        self._since.pop(key, None)

    def hang(self, now: float) -> bool:
        """Whether the oldest has been under way for too long, and nothing came to an end since it began."""
        since = next(iter(self._since.values()), None)
        return since is not None and now - since > self._limit and self._ended_at <= since


class Watchdog:
    """One picker's standing. Tell it of every pick; `look` at it now and then."""

    def __init__(self, pick_seconds: float, hold_seconds: float) -> None:
        """A pick may take `pick_seconds`, besides the `hold_seconds` that it may be held on purpose."""
        self.picks = UnderWay(pick_seconds)
        self.holds = UnderWay(hold_seconds + HOLD_GRACE_SECONDS)
        self.ready = False  # a first state of the fleet is in memory
        self._looks = 0  # in a row that found something hanging
        self._hung_at = float("-inf")

    def dropped(self, key: object) -> None:
        """The exchange `key` is over, whatever it was doing."""
        self.picks.dropped(key)
        self.holds.dropped(key)

    def look(self, now: float) -> Standing:
        """The standing at `now`; the caller's looks are expected to come at a steady pace."""
        hang = self.picks.hang(now) or self.holds.hang(now)
        self._looks = self._looks + 1 if hang else 0
        if self._looks >= CONFIRM_LOOKS:
            self._hung_at = now
        if now - self._hung_at < CALM_SECONDS:
            return Standing.HANGING
        return Standing.SERVING if self.ready else Standing.STARTING


class LoopWatch:
    """Whether an event loop still moves: it counts beats, somebody outside of it looks at the count."""

    def __init__(self) -> None:
        self.beats = 0
        self._seen = -1
        self._missed = 0

    def beat(self) -> None:
        """The loop came by."""
        self.beats += 1

    def look(self) -> bool:
        """Whether it is stuck: no beat between any of the last looks."""
        if self.beats != self._seen:
            self._seen, self._missed = self.beats, 0
        else:
            self._missed += 1
        return self._missed >= BEATS_MISSED
