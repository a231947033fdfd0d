"""What a store of fleet state owes its callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from fleet.model import Load, Rate, Traffic, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping

Record = TypeVar("Record", Load, Rate, Weight, Traffic)


class Store(Protocol):
    """Records by model, kind and endpoint address. The last write of an address wins."""

    async def write(self, model: str, records: Mapping[str, Load | Rate | Weight | Traffic]) -> None:
        """Keep each record under its endpoint's address. Raises StoreError if it could not."""

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        """All records of one kind, by address; unreadable ones are left out. Raises StoreError."""

    async def close(self) -> None:
        """Let go of connections; further calls are errors."""
