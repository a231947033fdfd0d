"""The store's in-memory twin, for tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from fleet.store.leases import SlidingWindow, lend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fleet.store.base import AnyRecord, Record
    from fleet.store.leases import Lease, LeaseAsk


class MemoryStore:
    """Keeps records in a dictionary; satisfies `fleet.store.base.Store`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._records: dict[tuple[str, type], dict[str, AnyRecord]] = {}
        self._windows: dict[str, SlidingWindow] = {}
        self._clock = clock

    async def write(self, model: str, records: Mapping[str, AnyRecord]) -> None:
        """Keep each record under its endpoint's address."""
        for address, record in records.items():
            self._records.setdefault((model, type(record)), {})[address] = record

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        """All records of one kind, by address."""
        return cast("dict[str, Record]", dict(self._records.get((model, kind), {})))

    async def forget(self, model: str) -> None:
        """Remove every record of the model."""
        self._records = {key: kept for key, kept in self._records.items() if key[0] != model}

    async def lease(self, asks: Sequence[LeaseAsk]) -> list[Lease]:
        """Lend tokens out of common budgets, one answer for each ask."""
        return [
            lend(self._windows.setdefault(ask.account, SlidingWindow(ask.window)), ask, self._clock())
            for ask in asks
        ]

    async def close(self) -> None:
        """Nothing to let go of."""
