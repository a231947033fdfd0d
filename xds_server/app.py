"""`python -m xds_server`: collector, weights and ADS server in one process, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fleet.outage import StoreOutage
from fleet.process import metrics_page
from fleet.store.redis import RedisStore
from xds_server.cache import SnapshotCache
from xds_server.collect.scrape import Collector, scraping_client
from xds_server.metrics import XdsMetrics
from xds_server.publisher import Publisher
from xds_server.server import serve_ads

if TYPE_CHECKING:
    from fleet.settings import Settings
    from fleet.store.base import Store

_LOG = logging.getLogger(__name__)


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Collect, weigh and serve until `stop` is set. Raises StartError before anything is served."""
    fleet = settings.fleet()
    metrics = XdsMetrics()
    cache = SnapshotCache()
    outage = StoreOutage(metrics.registry, "kvpilot_xds")
    metrics.snapshot_age.set_function(lambda: cache.age)
    async with (
        metrics_page(metrics.registry, "xds_metrics", settings.xds_metrics),
        scraping_client(settings.collect) as client,
        serve_ads(cache, metrics, settings.xds_address),
        asyncio.TaskGroup() as group,
    ):
        collector = Collector(fleet, settings.collect, client, store, metrics, outage)
        publisher = Publisher(settings, fleet, store, collector.loads, cache, outage)
        loops = [group.create_task(collector.run()), group.create_task(publisher.run())]
        _LOG.info("serving %d endpoints on %s", len(fleet.endpoints), settings.xds_address)
        await stop.wait()
        for loop in loops:
            loop.cancel()


async def run(settings: Settings, _source: str, stop: asyncio.Event) -> None:
    """Serve with the Redis of the settings; see `serve`."""
    store = RedisStore(settings.redis_url)
    try:
        await serve(settings, store, stop)
    finally:
        await store.close()
