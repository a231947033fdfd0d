"""How long each emulated engine's prefill ran, from the counter it exports; real engines have none."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from sim.exposition import PREFILL_BUSY_COUNTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fleet.model import Endpoint

TIMEOUT_SECONDS = 2.0
"""An engine that takes longer to tell is left out: a figure is missing, the demo goes on."""


@dataclass(frozen=True, slots=True)
class PrefillReading:
    """Seconds of prefill by endpoint address, as of `at` on the monotonic clock."""

    at: float
    busy_seconds: Mapping[str, float]

    def share_until(self, later: PrefillReading) -> dict[str, float]:
        """Share of the time between both readings that each endpoint's prefill ran, 0..1."""
        passed = later.at - self.at
        return {
            address: (later.busy_seconds[address] - before) / passed
            for address, before in self.busy_seconds.items()
            if address in later.busy_seconds
        }


def busy_seconds(exposition: str) -> float | None:
    """The counter's value in Prometheus text; None where it is not told."""
    for line in exposition.splitlines():
        if line.startswith((PREFILL_BUSY_COUNTER + " ", PREFILL_BUSY_COUNTER + "{")):
            try:
                return float(line.rsplit(" ", 1)[-1])
            except ValueError:
                return None
    return None


async def read_prefill(endpoints: Iterable[Endpoint]) -> PrefillReading:
    """Read every endpoint at once; those that do not answer are left out."""
    limit = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=limit) as http, asyncio.TaskGroup() as group:
        readings = {e.address: group.create_task(_read(http, e.metrics_url)) for e in endpoints}
    found = {address: task.result() for address, task in readings.items()}
    return PrefillReading(time.monotonic(), {a: busy for a, busy in found.items() if busy is not None})


async def _read(http: aiohttp.ClientSession, url: str) -> float | None:
    try:
        async with http.get(url) as response:
            return busy_seconds(await response.text(errors="replace"))
    except (aiohttp.ClientError, OSError, ValueError):  # a timeout is an OSError
        return None
