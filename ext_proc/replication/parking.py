"""Log entries about picks that are not known here, or not yet.

Envoy logs a request to any replica. The placement may be under way in the store's stream when its first log
entry arrives, so an unknown pick's entries wait a moment for it; what nobody placed is dropped then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext_proc.completions import LogEntry

PARKED_SECONDS = 2.0
"""A hundred times the lag between replicas; a store that is away for longer is away."""

PARKED_MAX = 4096
"""Entries: strangers can send entries, too, and take no more than a few MB."""


class Parking:
    """`open` while there is another replica that may have placed what is not known here."""

    def __init__(self) -> None:
        self.open = False
        self.applied = 0  # entries whose placement came
        self.dropped = 0  # and others
        self._entries: dict[str, list[LogEntry]] = {}  # by pick, oldest first
        self._until: dict[str, float] = {}
        self._count = 0

    def __len__(self) -> int:
        """Entries that wait."""
        return self._count

    def park(self, entry: LogEntry, now: float) -> bool:
        """Keep an entry for later. False where nobody else could have placed it, or too many wait."""
        if not self.open or self._count >= PARKED_MAX:
            return False
        self._until.setdefault(entry.pick_id, now + PARKED_SECONDS)
        self._entries.setdefault(entry.pick_id, []).append(entry)
        self._count += 1
        return True

    def take(self, pick_id: str) -> list[LogEntry]:
        """The pick is known now: what was said of it before, oldest first."""
        if pick_id not in self._entries:
            return []
        del self._until[pick_id]
        taken = self._entries.pop(pick_id)
        self._count -= len(taken)
        self.applied += len(taken)
        return taken

    def expire(self, now: float) -> None:
        """Drop what has waited long enough."""
        while self._until:
            pick_id, until = next(iter(self._until.items()))
            if until > now:
                return
            del self._until[pick_id]
            gone = len(self._entries.pop(pick_id))
            self._count -= gone
            self.dropped += gone
