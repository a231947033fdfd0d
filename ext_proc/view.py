"""Keeps the picker's view of the fleet fresh: loads come from the store, what it learned goes there.

The picker decides from memory. While the store is away this loop tries on, and the picker goes on with
what it has and with its own feedback.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fleet.model import RATE_STALE_SECONDS, Load, Rate
from fleet.store.base import read_fleet, write_fleet

if TYPE_CHECKING:
    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from fleet.model import Fleet
    from fleet.outage import StoreOutage
    from fleet.store.base import Store


class View:
    """One picker's exchange with the store."""

    def __init__(
        self, fleet: Fleet, picker: Picker, store: Store, metrics: PickerMetrics, outage: StoreOutage
    ) -> None:
        self._fleet = fleet
        self._picker = picker
        self._store = store
        self._metrics = metrics
        self._outage = outage
        self.read = asyncio.Event()
        """Set once the fleet's state was read."""

    async def run(self, interval: float) -> None:
        """Exchange for ever, every `interval` seconds: nothing newer is there between two scrapes."""
        remembered = False
        while True:
            now = time.monotonic()
            self._metrics.expired.inc(self._picker.expire(now))
            self._metrics.in_flight.set(self._picker.in_flight)
            self._metrics.known_blocks.set(self._picker.known_blocks)
            with self._outage.tolerated():
                if not remembered:
                    await self.remember(time.time())
                    remembered = True
                await self.exchange(now, time.time())
                self.read.set()
            await asyncio.sleep(interval)

    async def remember(self, at: float) -> None:
        """Start from the rates that were learned before a restart. Raises StoreError."""
        stored = await read_fleet(self._store, self._fleet, Rate)
        known = self._picker.rates(at)
        for address, rate in stored.items():
            if address not in known and at - rate.at <= RATE_STALE_SECONDS:
                self._picker.believe(address, rate.prefill)

    async def exchange(self, now: float, at: float) -> None:
        """Read loads, write what was seen and learned. `at` is `now` in Unix time. Raises StoreError."""
        for address, load in (await read_fleet(self._store, self._fleet, Load)).items():
            self._picker.observe(address, load, now - (at - load.at))
        await write_fleet(self._store, self._fleet, self._picker.traffic(at))
        await write_fleet(self._store, self._fleet, self._picker.rates(at))
