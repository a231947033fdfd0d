"""Keeps the picker's view of the fleet fresh: loads come from the store, what it learned goes there.

The picker decides from memory. While the store is away this loop says so once and tries on; the picker
goes on with what it has and with its own feedback.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from ext_proc.endpoint import LOAD_STALE_SECONDS
from fleet.errors import StoreError
from fleet.model import Load
from fleet.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.metrics import Metrics
    from ext_proc.picker import Picker
    from fleet.model import Fleet, Rate, Traffic
    from fleet.store.base import Store

INTERVAL_SECONDS = 1.0
"""As often as the collector writes; nothing newer is there in between."""


class View:
    """One picker's exchange with the store."""

    def __init__(self, fleet: Fleet, picker: Picker, store: Store, metrics: Metrics) -> None:
        self._fleet = fleet
        self._picker = picker
        self._store = store
        self._metrics = metrics
        self._outage = Outage("the store")

    async def run(self) -> None:
        """Exchange for ever, once an interval."""
        while True:
            now = time.monotonic()
            self._metrics.expired.inc(self._picker.expire(now))
            self._metrics.in_flight.set(self._picker.in_flight)
            try:
                await self.exchange(now, time.time())
            except StoreError as error:
                self._metrics.store_failures.inc()
                self._metrics.store_up.set(0)
                self._outage.failed(error)
            else:
                self._metrics.store_up.set(1)
                self._outage.worked()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def exchange(self, now: float, at: float) -> None:
        """Read loads, write what was seen and learned. `at` is `now` in Unix time. Raises StoreError."""
        traffic = self._picker.traffic(now, at)
        rates = self._picker.rates(at)
        for model in self._fleet.models:
            addresses = [e.address for version in model.versions for e in version.endpoints]
            loads = await self._store.read(model.name, Load)
            for address in addresses:
                load = loads.get(address)
                if load is not None and at - load.at <= LOAD_STALE_SECONDS:
                    self._picker.observe(address, load, now)
            await self._write(model.name, addresses, traffic)
            await self._write(model.name, addresses, rates)

    async def _write(
        self, model: str, addresses: list[str], records: Mapping[str, Rate] | Mapping[str, Traffic]
    ) -> None:
        mine = {address: records[address] for address in addresses if address in records}
        if mine:
            await self._store.write(model, mine)
