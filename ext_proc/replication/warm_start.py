"""Writes the copy that new replicas start from, and starts from one.

One replica of a model holds the lease to write, every half minute. It takes one endpoint after the other and
lets requests through between them; news that comes meanwhile is in the stream behind the copy's cursor, and
applying it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ext_proc.events import Placed
from ext_proc.replication import copying, wire
from fleet.errors import RecordError

if TYPE_CHECKING:
    from ext_proc.events import Began
    from ext_proc.picker import Picker
    from ext_proc.replication.link import Link
    from fleet.store.streams import Streams

COPY_SECONDS = 30.0
"""Between two copies: what is newer comes from the stream, which keeps three times as much."""

COPY_LIVES_SECONDS = 3600.0
"""After an hour engines hold little of what they held."""

TAIL_ENTRIES = 500
"""Read at once when starting: nothing else is to be done then."""

TAIL_SECONDS = 1.5
"""Spent on the tail at most; what is left comes while requests are served."""

_HEAD, _SESSIONS = "head", "sessions"
_log = logging.getLogger(__name__)


class WarmStart:
    """Copies of one model. `addresses`: its endpoints."""

    def __init__(
        self, link: Link, picker: Picker, streams: Streams, fingerprint: bytes, addresses: tuple[str, ...]
    ) -> None:
        self._link = link
        self._picker = picker
        self._streams = streams
        self._fingerprint = fingerprint
        self._addresses = addresses

    async def load(self) -> bool:
        """Start from the last copy and what came since; whether there was one. Raises StoreError."""
        model = self._link.model
        (data,) = await self._streams.load(model, _HEAD, [_HEAD])
        try:
            copy = copying.decode(data) if data else None
        except RecordError:
            copy = None
        if copy is None or copy.fingerprint != self._fingerprint:
            return False
        dumps: dict[str, bytes] = {}
        for address in self._addresses:
            if address in copy.chunks:
                names = [copying.chunk_name(address, n) for n in range(copy.chunks[address])]
                chunks = await self._streams.load(model, copy.cursor, names) if names else []
                dumps[address] = b"".join(chunk for chunk in chunks if chunk)
        self._picker.memory.load_blocks(dumps, copy.capacities)
        names = [copying.chunk_name(_SESSIONS, n) for n in range(copy.session_chunks)]
        for chunk in await self._streams.load(model, copy.cursor, names) if names else ():
            self._picker.memory.load_sessions(
                copying.decode_sessions(chunk or b""), self._link.clock.offset or 0.0
            )
        for outstanding in copy.outstanding:
            self._link.take_over(outstanding)
        self._link.cursor = copy.cursor
        await self._read_tail()
        _log.info("%s: starting with %d known blocks", model, self._picker.known_blocks)
        return True

    async def _read_tail(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + TAIL_SECONDS
        while loop.time() < until:
            entries = await self._streams.read(self._link.model, self._link.cursor, 0, TAIL_ENTRIES)
            self._link.take_in(entries)
            if len(entries) < TAIL_ENTRIES:
                return
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Write a copy every half minute, if it is this replica's turn, for ever."""
        while True:
            await asyncio.sleep(COPY_SECONDS)
            with self._link.outage.tolerated():
                if await self._streams.lease(self._link.model, "copy", self._link.name, 1.5 * COPY_SECONDS):
                    await self.save()

    async def save(self) -> None:
        """Write a copy. Raises StoreError."""
        link, model = self._link, self._link.model
        # What belongs together is taken together; blocks may be newer.
        copy = copying.Copy(
            at=link.store_time(),
            fingerprint=self._fingerprint,
            cursor=link.cursor,
            capacities={address: self._picker.memory.capacity(address) for address in self._addresses},
            outstanding=self._outstanding(),
        )
        sessions = self._picker.memory.dump_sessions()
        for start in range(0, len(sessions), copying.SESSIONS_PER_CHUNK):
            part = sessions[start : start + copying.SESSIONS_PER_CHUNK]
            offset = link.clock.offset or 0.0
            chunk = copying.encode_sessions([(s, address, at + offset) for s, (address, at) in part])
            name = copying.chunk_name(_SESSIONS, start // copying.SESSIONS_PER_CHUNK)
            await self._streams.save(model, copy.cursor, name, chunk, COPY_LIVES_SECONDS)
        for address in self._addresses:
            chunks = copying.split(self._picker.memory.dump_blocks(address))
            copy.chunks[address] = len(chunks)
            for number, chunk in enumerate(chunks):
                name = copying.chunk_name(address, number)
                await self._streams.save(model, copy.cursor, name, chunk, COPY_LIVES_SECONDS)
            await asyncio.sleep(0)
        count = -(-len(sessions) // copying.SESSIONS_PER_CHUNK)
        head = replace(copy, session_chunks=count).encode()
        await self._streams.save(model, _HEAD, _HEAD, head, COPY_LIVES_SECONDS)

    def _outstanding(self) -> tuple[bytes, ...]:
        """Requests under way, a batch for each replica that placed some."""
        by_replica: dict[str, list[Placed | Began]] = {}
        placed_by: dict[str, str] = {}
        for event in self._picker.outstanding():
            if isinstance(event, Placed):
                if event.endpoints[0] not in self._addresses:
                    continue
                placed_by[event.id] = event.replica
            if event.id in placed_by:
                by_replica.setdefault(placed_by[event.id], []).append(event)
        offset = self._link.clock.offset or 0.0
        return tuple(wire.encode(events, name, 1, offset) for name, events in by_replica.items())
