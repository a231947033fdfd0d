"""Replicas of a picker over one model, and the exchange between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.replication.replication import Replication
from ext_proc.waiting import WaitingRoom
from fleet.model import Fleet, Model, Version
from fleet.outage import StoreOutage
from tests.ext_proc.small import ENDPOINTS, SETTINGS, endpoint
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ext_proc.events import Placed
    from ext_proc.request import RoutingRequest
    from fleet.store.streams import Streams

FLEET = Fleet((Model("m", (Version("v", 100, tuple(ENDPOINTS)),)),))
ELSEWHERE = replace(endpoint("10.0.1.1:80", 20_000), model="n")
TWO_MODELS = Fleet((*FLEET.models, Model("n", (Version("v", 100, (ELSEWHERE,)),))))
KEY = b"k" * 16


class Replica:
    """One picker with its exchange. `skew`: seconds that its own clock is ahead."""

    def __init__(
        self, name: str, streams: Streams, skew: float = 0.0, key: bytes = KEY, fleet: Fleet = FLEET
    ) -> None:
        self.skew = skew
        self.metrics = PickerMetrics()
        self.picker = Picker(SETTINGS, fleet.endpoints.values(), seed=sum(name.encode()), name=name)
        self.room = WaitingRoom(self.picker, SETTINGS.hold_seconds, SETTINGS.held_max)
        self.outage = StoreOutage(self.metrics.registry, "test")
        self.exchange = Replication(
            fleet, self.picker, self.room, streams, key, self.metrics.registry, self.outage, self.now
        )
        self.link = self.exchange.links["m"]
        self.links = self.exchange.links.values()

    def now(self) -> float:
        return time.monotonic() + self.skew

    def place(self, asked: RoutingRequest) -> Placed:
        decision = self.picker.pick(asked, self.now())
        assert decision is not None
        return decision.placed

    def finish(self, placed: Placed) -> None:
        self.picker.finish(placed.id, self.now(), endpoint=placed.endpoints[0])

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    """All of them exchange, and know of each other."""
    async with asyncio.TaskGroup() as tasks:
        for replica in replicas:
            task = tasks.create_task(replica.exchange.run())
            replica.stop = task.cancel  # type: ignore[attr-defined]
            await replica.exchange.ready.wait()
        await until(lambda: all(len(link.others) >= len(replicas) - 1 for r in replicas for link in r.links))
        yield
        for replica in replicas:
            replica.stop()  # type: ignore[attr-defined]
