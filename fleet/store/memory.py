"""The store's in-memory twin, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.store.base import AnyRecord, Record


class MemoryStore:
    """Keeps records in a dictionary; satisfies `fleet.store.base.Store`."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, type], dict[str, AnyRecord]] = {}

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

    async def close(self) -> None:
        """Nothing to let go of."""
