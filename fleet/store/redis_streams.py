"""Event streams, replicas and copies in a real Redis (6.2 or later).

Keys: `kvpilot:{model}:events` (a stream; an entry is its sender and bytes), `kvpilot:{model}:replicas` (a
hash by name), `kvpilot:{model}:lease:NAME`, and `kvpilot:{model}:copy:NAME` (a hash of chunks).

An append and a read are packed here and sent over a connection that is ours alone: that is half the
client's own cost of a command, and they are what each placement pays (docs/performance.md).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from fleet.store.redis_client import TIMEOUT_SECONDS, connect, disconnect, faults, without_password
from fleet.store.streams import START, STREAM_ENTRIES_MAX, Ends, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

STREAM_EXPIRY_SECONDS = 3600
"""A stream that nobody writes to any more goes away: what is older tells nothing of requests or caches."""

_MAXLEN = str(STREAM_ENTRIES_MAX).encode()


class RedisStreams:
    """Satisfies `fleet.store.streams.Streams`; every redis-py exception becomes a StoreError."""

    def __init__(self, url: str) -> None:
        """`url`: see `redis_client.connect`. Nothing is dialled yet. Raises StoreError for a bad one."""
        self._name = without_password(url)
        self._client = connect(url)
        self._own: dict[str, Any] = {}  # connections, by what they are for

    async def append(self, model: str, sender: str, data: bytes) -> str:
        """Add an entry; its id. Raises StoreError: then the entry may be there or not."""
        key = _key(model, "events")
        command = packed(
            (b"XADD", key, b"MAXLEN", b"~", _MAXLEN, b"*", b"by", sender.encode(), b"data", data)
        )
        with faults(f"{self._name}: could not append"):
            return cast("bytes", await self._ask(f"append {model}", command, TIMEOUT_SECONDS)).decode()

    async def read(self, model: str, after: str, wait: float, most: int = 1000) -> list[Entry]:
        """Entries after `after`; waits up to `wait` seconds (0: not at all). Raises StoreError."""
        blocking = (b"BLOCK", str(max(1, int(1000 * wait))).encode()) if wait > 0 else ()
        key = _key(model, "events")
        command = packed((b"XREAD", b"COUNT", str(most).encode(), *blocking, b"STREAMS", key, after.encode()))
        with faults(f"{self._name}: could not read"):
            answer = await self._ask(f"read {model}", command, wait + TIMEOUT_SECONDS)
        by_key = answer.values() if isinstance(answer, dict) else [found for _, found in answer or ()]
        return [_entry(entry) for entries in by_key for entry in entries]

    async def ends(self, model: str) -> Ends:
        """First and last id and the length of the stream. Raises StoreError."""
        with faults(f"{self._name}: could not read"):
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.xlen(_key(model, "events"))
                pipeline.xinfo_stream(_key(model, "events"))
                pipeline.expire(_key(model, "events"), STREAM_EXPIRY_SECONDS)
                length, found, _ = await pipeline.execute(raise_on_error=False)
            if isinstance(length, Exception):
                raise length
        if not isinstance(found, dict):  # no such key
            return Ends(START, START, 0)
        first = found["first-entry"]
        return Ends(first[0].decode() if first else START, found["last-generated-id"].decode(), length)

    async def server_time(self) -> float:
        """Redis's own clock. Raises StoreError."""
        with faults(f"{self._name}: could not ask for the time"):
            seconds, microseconds = await self._client.time()
        return int(seconds) + int(microseconds) / 1e6

    async def attend(self, model: str, name: str, word: bytes) -> dict[str, bytes]:
        """Say that `name` is there; what all have said. Raises StoreError."""
        key = _key(model, "replicas")
        with faults(f"{self._name}: could not say who is there"):
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hset(key, name, word)
                pipeline.expire(key, STREAM_EXPIRY_SECONDS)
                pipeline.hgetall(key)
                said = (await pipeline.execute())[2]
        return {other.decode("utf-8", "replace"): data for other, data in said.items()}

    async def leave(self, model: str, names: list[str]) -> None:
        """These are not there any more. Raises StoreError."""
        with faults(f"{self._name}: could not say who left"):
            await self._client.hdel(_key(model, "replicas"), *names)

    async def lease(self, model: str, what: str, owner: str, seconds: float) -> bool:
        """Whether `owner` has the lease now. Raises StoreError."""
        key, milliseconds = _key(model, f"lease:{what}"), int(1000 * seconds)
        with faults(f"{self._name}: could not take a lease"):
            if await self._client.set(key, owner, nx=True, px=milliseconds):
                return True
            if await self._client.get(key) != owner.encode():
                return False
            return bool(await self._client.pexpire(key, milliseconds))

    async def save(self, model: str, name: str, chunk: str, data: bytes, seconds: float) -> None:
        """Keep one chunk. Raises StoreError."""
        key = _key(model, f"copy:{name}")
        with faults(f"{self._name}: could not save"):
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hset(key, chunk, data)
                pipeline.pexpire(key, int(1000 * seconds))
                await pipeline.execute()

    async def load(self, model: str, name: str, chunks: list[str]) -> list[bytes | None]:
        """The chunks asked for. Raises StoreError."""
        with faults(f"{self._name}: could not load"):
            return cast("list[bytes | None]", await self._client.hmget(_key(model, f"copy:{name}"), chunks))

    async def close(self) -> None:
        """Close the connections."""
        own, self._own = self._own, {}
        for connection in own.values():
            await self._give_back(connection)
        await disconnect(self._client)

    async def _ask(self, purpose: str, command: bytes, timeout: float) -> Any:
        """Send and wait for the answer, over the connection kept for this purpose; a failure drops it.

        The time limit is ours: redis-py's own makes a task of every command, which costs as much as all else.
        """
        pool: Any = self._client.connection_pool
        connection = self._own.pop(purpose, None)
        if connection is None:
            connection = await pool.get_connection()
            connection.socket_timeout = None
        try:
            async with asyncio.timeout(timeout):
                await connection.send_packed_command(command, check_health=False)
                answer = await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            await self._give_back(connection)
            raise
        self._own[purpose] = connection
        return answer

    async def _give_back(self, connection: Any) -> None:
        connection.socket_timeout = TIMEOUT_SECONDS
        await self._client.connection_pool.release(connection)


def packed(arguments: Iterable[bytes]) -> bytes:
    """A command as Redis reads it."""
    parts = list(arguments)
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        out.append(b"$%d\r\n" % len(part))
        out.append(part)
        out.append(b"\r\n")
    return b"".join(out)


def _entry(raw: Any) -> Entry:
    """An entry of ours; of any other the id alone."""
    id_, fields = raw
    if fields is None or len(fields) != 4 or fields[0] != b"by" or fields[2] != b"data":
        return Entry(id_.decode(), "", b"")
    return Entry(id_.decode(), fields[1].decode("utf-8", "replace"), fields[3])


def _key(model: str, what: str) -> bytes:
    return f"kvpilot:{{{model}}}:{what}".encode()
