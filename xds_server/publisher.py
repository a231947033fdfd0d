"""The loop that turns fleet state into the snapshot that is served."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fleet.model import RATE_STALE_SECONDS, Load, Rate, Weight
from fleet.store.base import read_fleet, write_fleet
from fleet.weights import WeightController
from xds_server.resources import fixed_resources, weighted_resources
from xds_server.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Fleet
    from fleet.outage import StoreOutage
    from fleet.settings import Settings
    from fleet.store.base import Store
    from xds_server.cache import SnapshotCache


class Publisher:
    """Weighs the endpoints once per interval and publishes what changed. The store may be away."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        store: Store,
        loads: Mapping[str, Load],
        cache: SnapshotCache,
        outage: StoreOutage,
    ) -> None:
        """`loads`: the newest scrapes, as they stand at any time."""
        self._settings = settings
        self._fleet = fleet
        self._store = store
        self._loads = loads
        self._cache = cache
        self._outage = outage
        self._controller = WeightController(
            fleet, settings.weights, settings.steering, settings.collect.stale_after_seconds
        )
        self._fixed = fixed_resources(settings, fleet)
        self._rates: dict[str, Rate] = {}
        self._earlier_loads: dict[str, Load] = {}  # another process's, until the collector knows better
        self._weights: dict[str, int] = {}

    async def run(self) -> None:
        """Go on from the stored weights, then publish every `interval_seconds`, for ever."""
        await self.resume()
        spent = 0.0
        while True:
            await asyncio.sleep(max(0.0, self._settings.weights.interval_seconds - spent))
            started = time.monotonic()
            await self.tick(time.time())
            spent = time.monotonic() - started

    async def resume(self) -> None:
        """Take up where an earlier process left off, as far as the store knows, and publish."""
        with self._outage.tolerated():
            stored = await read_fleet(self._store, self._fleet, Weight)
            if stored:
                self._controller.resume({address: weight.value for address, weight in stored.items()})
            self._earlier_loads = await read_fleet(self._store, self._fleet, Load)
        self._publish(time.time())

    async def tick(self, now: float) -> None:
        """Read what was learned, weigh, publish, and keep the weights; `now` is Unix seconds."""
        with self._outage.tolerated():
            stored = await read_fleet(self._store, self._fleet, Rate)
            self._rates = {a: rate for a, rate in stored.items() if now - rate.at <= RATE_STALE_SECONDS}
        self._publish(now)
        await self._save(now)

    def _publish(self, now: float) -> None:
        weights = self._controller.update(now, {**self._earlier_loads, **self._loads}, self._rates)
        if weights is None:
            self._cache.confirm()
            return
        self._cache.publish(Snapshot(self._fixed + weighted_resources(self._fleet, weights)))
        self._weights = weights

    async def _save(self, now: float) -> None:
        """Keep the weights that are served, changed or not: a store that was emptied is filled again."""
        with self._outage.tolerated():
            records = {address: Weight(now, value) for address, value in self._weights.items()}
            await write_fleet(self._store, self._fleet, records)
