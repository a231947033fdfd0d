"""What a store of fleet state owes its callers, and a whole fleet's records read and written through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from fleet.model import Load, Rate, Traffic, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleet.model import Fleet
    from fleet.store.leases import Lease, LeaseAsk

Record = TypeVar("Record", Load, Rate, Weight, Traffic)
AnyRecord = Load | Rate | Weight | Traffic


class Store(Protocol):
    """Records by model, kind and endpoint address. The last write of an address wins."""

    async def write(self, model: str, records: Mapping[str, AnyRecord]) -> None:
        """Keep each record under its endpoint's address. Raises StoreError if it could not."""

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        """All records of one kind, by address; unreadable ones are left out. Raises StoreError."""

    async def lease(self, asks: Sequence[LeaseAsk]) -> list[Lease]:
        """Lend tokens out of common budgets, one answer for each ask. Raises StoreError.

        What was asked may have been booked all the same where the answer did not come.
        """

    async def close(self) -> None:
        """Let go of connections; further calls are errors."""


async def read_fleet(store: Store, fleet: Fleet, kind: type[Record]) -> dict[str, Record]:
    """One kind of record of every endpoint that has it, by address. Raises StoreError.

    Records of addresses that the fleet does not know are left out: a store annotates, it never introduces.
    """
    found: dict[str, Record] = {}
    for model in fleet.models:
        found.update(await store.read(model.name, kind))
    return {address: record for address, record in found.items() if address in fleet.endpoints}


async def write_fleet(store: Store, fleet: Fleet, records: Mapping[str, AnyRecord]) -> None:
    """Keep each record under its endpoint's model and address; strangers are left out. Raises StoreError."""
    by_model: dict[str, dict[str, AnyRecord]] = {}
    for address, record in records.items():
        if address in fleet.endpoints:
            by_model.setdefault(fleet.endpoints[address].model, {})[address] = record
    for model, of_model in by_model.items():
        await store.write(model, of_model)
