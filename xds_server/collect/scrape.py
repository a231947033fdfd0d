"""Reads every endpoint's metrics once per interval and keeps what they said, here and in the store."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import aiohttp

from fleet.errors import ScrapeError
from fleet.model import Load
from fleet.store.base import write_fleet
from xds_server.collect.engines import read_load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Endpoint, Fleet
    from fleet.outage import StoreOutage
    from fleet.settings import CollectSettings
    from fleet.store.base import Store
    from xds_server.metrics import XdsMetrics

_LOG = logging.getLogger(__name__)

LARGEST_PAGE = 4 << 20
"""Bytes read of one metrics page: a Triton with hundreds of models stays below; more is not for us."""


class Readings:
    """The newest `Load` of each endpoint, and how often in a row it could not be read. Pure."""

    def __init__(self, failures_to_eject: int) -> None:
        self.loads: dict[str, Load] = {}
        self._failures_to_eject = failures_to_eject
        self._failures: dict[str, int] = {}

    def succeeded(self, address: str, load: Load) -> None:
        """A scrape worked: this is the record to keep."""
        self._failures[address] = 0
        self.loads[address] = load

    def failed(self, address: str, reason: str, now: float) -> Load | None:
        """A scrape failed at `now`: the record to keep, or None while it may be a hiccup."""
        self._failures[address] = self._failures.get(address, 0) + 1
        if self._failures[address] < self._failures_to_eject:
            return None
        self.loads[address] = Load(at=now, ready=False, reason=reason)
        return self.loads[address]


def scraping_client(settings: CollectSettings) -> aiohttp.ClientSession:
    """The HTTP client for a `Collector`; whoever opens it closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # all endpoints at once, one connection each
        timeout=aiohttp.ClientTimeout(total=settings.timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Collector:
    """Scrapes a fleet over a `scraping_client`."""

    def __init__(
        self,
        fleet: Fleet,
        settings: CollectSettings,
        client: aiohttp.ClientSession,
        store: Store,
        metrics: XdsMetrics,
        outage: StoreOutage,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._client = client
        self._store = store
        self._metrics = metrics
        self._readings = Readings(settings.failures_to_eject)
        self._outage = outage

    @property
    def loads(self) -> Mapping[str, Load]:
        """The newest record of each endpoint that has one, by address; always the same mapping."""
        return self._readings.loads

    async def run(self) -> None:
        """Scrape every `interval_seconds`, for ever."""
        while True:
            started = time.monotonic()
            await self.tick()
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.0, self._settings.interval_seconds - spent))

    async def tick(self) -> None:
        """Scrape all endpoints at once and write what they said. Raises nothing that one of them caused."""
        endpoints = list(self._fleet.endpoints.values())
        kept = await asyncio.gather(*(self._scrape(endpoint) for endpoint in endpoints))
        records = {e.address: load for e, load in zip(endpoints, kept, strict=True) if load is not None}
        if records:  # writing nothing proves nothing about the store
            with self._outage.tolerated():
                await write_fleet(self._store, self._fleet, records)

    async def _scrape(self, endpoint: Endpoint) -> Load | None:
        before = self._readings.loads.get(endpoint.address)
        try:
            text = await self._fetch(endpoint.metrics_url)
            load = read_load(endpoint.engine, endpoint.model, text, time.time())
        except ScrapeError as error:
            self._metrics.scrapes.labels("failed").inc()
            kept = self._readings.failed(endpoint.address, str(error), time.time())
        else:
            self._metrics.scrapes.labels("ok").inc()
            self._readings.succeeded(endpoint.address, load)
            kept = load
        _tell(endpoint, before, kept)
        return kept

    async def _fetch(self, url: str) -> str:
        """The page at `url`. Raises ScrapeError."""
        try:
            async with self._client.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise ScrapeError(f"{url}: answered {response.status}")
                page = bytearray()
                async for chunk in response.content.iter_any():
                    page += chunk
                    if len(page) > LARGEST_PAGE:
                        raise ScrapeError(f"{url}: more than {LARGEST_PAGE} bytes")
                return page.decode("utf-8")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ScrapeError(f"{url}: {str(error) or type(error).__name__}") from error


def _tell(endpoint: Endpoint, before: Load | None, now: Load | None) -> None:
    """Say so when an endpoint leaves or comes back."""
    was_ready = before is None or before.ready
    if now is not None and now.ready != was_ready:
        state = "is ready again" if now.ready else f"is ejected: {now.reason}"
        _LOG.warning("%s of %s %s", endpoint.address, endpoint.cluster, state)
