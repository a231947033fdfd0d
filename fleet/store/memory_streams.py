"""The streams' in-memory twin, for tests: several replicas of one process share one."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from fleet.store.streams import START, STREAM_ENTRIES_MAX, Ends, Entry, order_of


class MemoryStreams:
    """Satisfies `fleet.store.streams.Streams`. `skew`: seconds that its clock is ahead of this machine's."""

    def __init__(self, skew: float = 0.0, most: int = STREAM_ENTRIES_MAX) -> None:
        self.skew = skew
        self._most = most
        self._entries: defaultdict[str, list[Entry]] = defaultdict(list)
        self._last: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self._said: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self._leases: dict[tuple[str, str], tuple[str, float]] = {}
        self._copies: dict[tuple[str, str], tuple[dict[str, bytes], float]] = {}
        self._more = asyncio.Event()

    async def append(self, model: str, sender: str, data: bytes) -> str:
        """Add an entry; its id."""
        at = (int(1000 * await self.server_time()), 0)
        last = self._last[model]
        self._last[model] = at = at if at > last else (last[0], last[1] + 1)
        id_ = f"{at[0]}-{at[1]}"
        self._entries[model].append(Entry(id_, sender, data))
        del self._entries[model][: -self._most]
        self._more.set()
        self._more = asyncio.Event()
        return id_

    async def read(self, model: str, after: str, wait: float, most: int = 1000) -> list[Entry]:
        """Entries after `after`."""
        more = self._more
        found = self._after(model, after, most)
        if not found and wait > 0:
            try:
                await asyncio.wait_for(more.wait(), wait)
            except TimeoutError:
                return []
            found = self._after(model, after, most)
        return found

    def _after(self, model: str, after: str, most: int) -> list[Entry]:
        first = order_of(after)
        return [entry for entry in self._entries[model] if order_of(entry.id) > first][:most]

    async def ends(self, model: str) -> Ends:
        """First and last id and the length of the stream."""
        entries = self._entries[model]
        last = self._last[model]
        return Ends(entries[0].id if entries else START, f"{last[0]}-{last[1]}", len(entries))

    async def server_time(self) -> float:
        """This machine's clock, skewed."""
        return time.time() + self.skew

    async def attend(self, model: str, name: str, word: bytes) -> dict[str, bytes]:
        """Say that `name` is there; what all have said."""
        self._said[model][name] = word
        return dict(self._said[model])

    async def leave(self, model: str, names: list[str]) -> None:
        """These are not there any more."""
        for name in names:
            self._said[model].pop(name, None)

    async def lease(self, model: str, what: str, owner: str, seconds: float) -> bool:
        """Whether `owner` has the lease now."""
        now = time.monotonic()
        holder, until = self._leases.get((model, what), (owner, 0.0))
        if holder != owner and until > now:
            return False
        self._leases[model, what] = (owner, now + seconds)
        return True

    async def save(self, model: str, name: str, chunk: str, data: bytes, seconds: float) -> None:
        """Keep one chunk."""
        chunks = self._copies.get((model, name), ({}, 0.0))[0]
        chunks[chunk] = data
        self._copies[model, name] = (chunks, time.monotonic() + seconds)

    async def load(self, model: str, name: str, chunks: list[str]) -> list[bytes | None]:
        """The chunks asked for."""
        kept, until = self._copies.get((model, name), ({}, 0.0))
        return [kept.get(chunk) if until > time.monotonic() else None for chunk in chunks]

    async def close(self) -> None:
        """Nothing to let go of."""

    def lose(self, model: str) -> None:
        """As after FLUSHALL, or a failover to a Redis that knew nothing: the stream is gone, ids and all."""
        self._entries.pop(model, None)
        self._last.pop(model, None)
