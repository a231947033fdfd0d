"""The loop that turns fleet state into the snapshot that is served."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fleet.errors import StoreError
from fleet.model import Load, Rate, Weight
from fleet.outage import Outage
from fleet.weights import WeightController
from xds_server.resources import fixed_resources, weighted_resources
from xds_server.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fleet.model import Fleet
    from fleet.settings import Settings
    from fleet.store.base import Store
    from xds_server.cache import SnapshotCache
    from xds_server.metrics import XdsMetrics


class Publisher:
    """Weighs the endpoints once per interval and publishes what changed. The store may be away."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        store: Store,
        loads: Callable[[], Mapping[str, Load]],
        cache: SnapshotCache,
        metrics: XdsMetrics,
        outage: Outage | None = None,
    ) -> None:
        """`loads` gives the newest scrapes; `outage` tells the log when the store is away."""
        self._settings = settings
        self._fleet = fleet
        self._store = store
        self._loads = loads
        self._cache = cache
        self._metrics = metrics
        self._outage = outage or Outage("the store")
        self._controller = WeightController(fleet, settings.weights, settings.steering)
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
        weights: dict[str, int] = {}
        try:
            for model in self._fleet.models:
                stored = await self._store.read(model.name, Weight)
                weights.update((address, weight.value) for address, weight in stored.items())
                self._earlier_loads.update(await self._store.read(model.name, Load))
        except StoreError as error:
            self._failed(error)
        if weights:
            self._controller.resume(weights)
        self._publish(time.time())

    async def tick(self, now: float) -> None:
        """Read what was learned, weigh, publish, and keep the weights; `now` is Unix seconds."""
        try:
            for model in self._fleet.models:
                self._rates.update(await self._store.read(model.name, Rate))
        except StoreError as error:
            self._failed(error)
        self._publish(now)
        await self._save(now)

    def _publish(self, now: float) -> None:
        weights = self._controller.update(now, {**self._earlier_loads, **self._loads()}, self._rates)
        if weights is None:
            self._cache.confirm()
            return
        self._cache.publish(Snapshot(self._fixed + weighted_resources(self._fleet, weights)))
        self._weights = weights

    async def _save(self, now: float) -> None:
        """Keep the weights that are served, changed or not: a store that was emptied is filled again."""
        try:
            for model in self._fleet.models:
                await self._store.write(model.name, self._records(model.name, now))
        except StoreError as error:
            self._failed(error)
        else:
            self._outage.worked()

    def _records(self, model: str, now: float) -> dict[str, Weight]:
        endpoints = self._fleet.endpoints
        return {a: Weight(now, w) for a, w in self._weights.items() if endpoints[a].model == model}

    def _failed(self, error: StoreError) -> None:
        self._metrics.store_failures.inc()
        self._outage.failed(error)
