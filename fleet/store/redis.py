"""Fleet state in a real Redis (6.2 or later).

Keys: `kvpilot:{model}:load|rate|weight|traffic`, each a hash of endpoint address to record bytes. The
braces are Redis Cluster's hash tag, so that one model's keys share a slot. `kvpilot:budget:{digest}`: an
account's tokens by bucket of the clock (`leases`); digests, since tenants' names are nobody else's affair.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

from fleet.errors import RecordError
from fleet.store import records
from fleet.store.leases import BUCKETS, LUA, Lease
from fleet.store.redis_client import connect, disconnect, faults, without_password

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleet.store.base import AnyRecord, Record
    from fleet.store.leases import LeaseAsk

Field = bytes | bytearray | memoryview | str | int | float
"""What redis-py takes as a field or a value of a hash."""

EXPIRY_SECONDS = 24 * 3600
"""Records of a fleet nobody serves any more go away by themselves after a day."""


class RedisStore:
    """Satisfies `fleet.store.base.Store`; every redis-py exception becomes a StoreError."""

    def __init__(self, url: str) -> None:
        """`url`: see `redis_client.connect`. Nothing is dialled yet. Raises StoreError for a bad one."""
        self._name = without_password(url)
        self._client = connect(url)

    async def ping(self) -> None:
        """Raises StoreError unless Redis answers."""
        with faults(f"{self._name}: Redis does not answer"):
            await self._client.ping()

    async def write(self, model: str, annotations: Mapping[str, AnyRecord]) -> None:
        """Keep each record under its endpoint's address, in one round trip. Raises StoreError."""
        by_key: dict[str, dict[Field, Field]] = {}
        for address, record in annotations.items():
            by_key.setdefault(_key(model, type(record)), {})[address] = records.encode(record)
        with faults(f"{self._name}: could not write"):
            async with self._client.pipeline(transaction=False) as pipeline:
                for key, fields in by_key.items():
                    pipeline.hset(key, mapping=fields)
                    pipeline.expire(key, EXPIRY_SECONDS)
                await pipeline.execute()

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        """All records of one kind, by address; unreadable ones are left out. Raises StoreError."""
        with faults(f"{self._name}: could not read"):
            fields = cast("dict[bytes, bytes]", await self._client.hgetall(_key(model, kind)))
        found: dict[str, Record] = {}
        for address, data in fields.items():
            try:
                found[address.decode()] = records.decode(kind, data)
            except (RecordError, UnicodeDecodeError):
                continue  # a newer replica's layout, or someone else's bytes: not for us
        return found

    async def lease(self, asks: Sequence[LeaseAsk]) -> list[Lease]:
        """Lend tokens out of common budgets, in one round trip. Raises StoreError."""
        with faults(f"{self._name}: could not lend"):
            async with self._client.pipeline(transaction=False) as pipeline:
                for ask in asks:
                    span = ask.window / BUCKETS
                    pipeline.eval(
                        LUA, 1, _account(ask.account), ask.debt, ask.wants, ask.budget, span, BUCKETS
                    )
                answers = await pipeline.execute()
        return [Lease(int(granted), int(used), float(frees_in)) for granted, used, frees_in in answers]

    async def forget(self, model: str) -> None:
        """Remove every record of the model. Raises StoreError."""
        with faults(f"{self._name}: could not delete"):
            await self._client.delete(*(_key(model, kind) for kind in records.KINDS))

    async def close(self) -> None:
        """Close the connections."""
        await disconnect(self._client)


def _key(model: str, kind: type) -> str:
    return f"kvpilot:{{{model}}}:{records.kind_name(kind)}"


def _account(account: str) -> str:
    data = account.encode("utf-8", "surrogatepass")
    return f"kvpilot:budget:{{{hashlib.blake2b(data, digest_size=16).hexdigest()}}}"
