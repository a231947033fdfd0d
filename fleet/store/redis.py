"""Fleet state in a real Redis (6.2 or later). The only module that imports redis.

Keys: `kvpilot:{model}:load|rate|weight|traffic`, each a hash of endpoint address to record bytes. The
braces are Redis Cluster's hash tag, so that one model's keys share a slot. `kvpilot:budget:{digest}`: an
account's tokens by bucket of the clock (`leases`); digests, since tenants' names are nobody else's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

import redis.asyncio
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError

from fleet.errors import RecordError, StoreError
from fleet.store import records
from fleet.store.leases import BUCKETS, LUA, Lease

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fleet.store.base import AnyRecord, Record
    from fleet.store.leases import LeaseAsk

Field = bytes | bytearray | memoryview | str | int | float
"""What redis-py takes as a field or a value of a hash."""

_DRIVER = DriverInfo()
"""Made once, here: redis-py would read its own version from disk for each connection, in the event loop."""

TIMEOUT_SECONDS = 1.0
"""A Redis that takes longer is treated as away: callers work on from memory."""

EXPIRY_SECONDS = 24 * 3600
"""Records of a fleet nobody serves any more go away by themselves after a day."""


class RedisStore:
    """Satisfies `fleet.store.base.Store`; every redis-py exception becomes a StoreError."""

    def __init__(self, url: str) -> None:
        """`url`: redis://, rediss:// or unix://. Nothing is dialled yet. Raises StoreError for a bad one."""
        self._name = _without_password(url)
        try:
            self._client = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                driver_info=_DRIVER,
            )
        except ValueError as error:
            raise StoreError(f"{self._name}: not a Redis URL: {error}") from error

    async def ping(self) -> None:
        """Raises StoreError unless Redis answers."""
        with _faults(f"{self._name}: Redis does not answer"):
            await self._client.ping()

    async def write(self, model: str, annotations: Mapping[str, AnyRecord]) -> None:
        """Keep each record under its endpoint's address, in one round trip. Raises StoreError."""
        by_key: dict[str, dict[Field, Field]] = {}
        for address, record in annotations.items():
            by_key.setdefault(_key(model, type(record)), {})[address] = records.encode(record)
        with _faults(f"{self._name}: could not write"):
            async with self._client.pipeline(transaction=False) as pipeline:
                for key, fields in by_key.items():
                    pipeline.hset(key, mapping=fields)
                    pipeline.expire(key, EXPIRY_SECONDS)
                await pipeline.execute()

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        """All records of one kind, by address; unreadable ones are left out. Raises StoreError."""
        with _faults(f"{self._name}: could not read"):
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
        with _faults(f"{self._name}: could not lend"):
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
        with _faults(f"{self._name}: could not delete"):
            await self._client.delete(*(_key(model, kind) for kind in records.KINDS))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@contextlib.contextmanager
def _faults(what: str) -> Iterator[None]:
    """redis-py's exceptions as StoreError; and a cancellation that it swallowed is still one.

    redis-py waits with `asyncio.wait_for`, which in Python 3.11 returns its result and drops a cancellation
    that arrives together with it: a loop that reads every second would go on after Ctrl-C.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    fault: Exception | None = None
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        fault = error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError from fault
    if fault is not None:
        raise StoreError(f"{what}: {fault}") from fault


def _without_password(url: str) -> str:
    """The URL as it may be shown, for errors are logged: no user info, no query."""
    parts = urlsplit(url)
    masked = "***@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, masked + parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _key(model: str, kind: type) -> str:
    return f"kvpilot:{{{model}}}:{records.kind_name(kind)}"


def _account(account: str) -> str:
    data = account.encode("utf-8", "surrogatepass")
    return f"kvpilot:budget:{{{hashlib.blake2b(data, digest_size=16).hexdigest()}}}"
