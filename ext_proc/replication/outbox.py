"""What is to be told to the other replicas of one model, in order, until it has been published.

Placements go at once: until they are heard, all replicas run for the same endpoint. Since only one batch is
under way at a time, batches form by themselves where there are many. Everything else may wait a little, and
all may where nobody else is there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ext_proc.events import Asked, Placed, Standing

if TYPE_CHECKING:
    from ext_proc.events import SharedEvent

NEWS_WAIT_SECONDS = 0.015
"""That first tokens and ends gather for: with the way through the store, 20 ms."""

ALONE_WAIT_SECONDS = 0.1
"""The same where nobody hears: only a copy's tail will be read from it."""

BATCH_EVENTS_MAX = 500
"""In one entry: some 100 KB with prompts of 4 KB."""

BACKLOG_EVENTS_MAX = 20_000
"""Kept while the store is away: ten seconds of 500 requests a second; about 20 MB with prompts of 4 KB."""


class Outbox:
    """Events to tell. Times are seconds on the caller's clock."""

    def __init__(self, most: int = BACKLOG_EVENTS_MAX) -> None:
        """At most `most` events are kept; the oldest are dropped, and then `lossy` is set."""
        self.dropped = 0
        self.lossy = False
        self._most = most
        self._events: deque[SharedEvent] = deque()
        self._since = 0.0  # when the oldest event came that waits
        self._urgent = False

    def __len__(self) -> int:
        """Events that wait."""
        return len(self._events)

    def add(self, event: SharedEvent, now: float) -> bool:
        """One more; whether it should be told at once."""
        if not self._events:
            self._since = now
        self._events.append(event)
        if len(self._events) > self._most:
            self._events.popleft()
            self.dropped += 1
            self.lossy = True
        self._urgent |= isinstance(event, Placed | Asked | Standing)
        return self._urgent

    def wait(self, now: float, *, alone: bool) -> float | None:
        """Seconds until the next batch should go; None where there is nothing to tell."""
        if not self._events:
            return None
        if alone:
            return max(0.0, self._since + ALONE_WAIT_SECONDS - now)
        return 0.0 if self._urgent else max(0.0, self._since + NEWS_WAIT_SECONDS - now)

    def take(self) -> list[SharedEvent]:
        """The next batch, oldest first."""
        taken = [self._events.popleft() for _ in range(min(len(self._events), BATCH_EVENTS_MAX))]
        if not self._events:
            self._urgent = False
        return taken
