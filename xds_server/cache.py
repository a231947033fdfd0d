"""The newest snapshot, and the waking of those who serve it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from xds_server.snapshot import Snapshot


class SnapshotCache:
    """Holds one snapshot; streams compare with it when woken, so nothing ever queues up."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self._confirmed = time.monotonic()
        self._watchers: set[asyncio.Event] = set()

    def publish(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the newest and wake every stream, unless it says what the last one said."""
        self.confirm()
        if self.snapshot is not None and snapshot.versions == self.snapshot.versions:
            return
        self.snapshot = snapshot
        for event in self._watchers:
            event.set()

    def confirm(self) -> None:
        """The snapshot is still right."""
        self._confirmed = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the snapshot was last made or confirmed."""
        return time.monotonic() - self._confirmed

    @contextmanager
    def watching(self, event: asyncio.Event) -> Iterator[None]:
        """Inside, `event` is set whenever there is a newer snapshot; at once if there is any."""
        self._watchers.add(event)
        if self.snapshot is not None:
            event.set()
        try:
            yield
        finally:
            self._watchers.discard(event)
