"""`python -m xds_server`: collector, weights and ADS server in one process, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from fleet import settings as settings_file
from fleet.errors import KvpilotError
from fleet.store.redis import RedisStore
from xds_server.cache import SnapshotCache
from xds_server.collect.discovery import discover
from xds_server.collect.scrape import Collector
from xds_server.metrics import XdsMetrics, serve_metrics
from xds_server.outage import Outage
from xds_server.publisher import Publisher
from xds_server.server import serve_ads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.settings import Settings
    from fleet.store.base import Store

_LOG = logging.getLogger(__name__)


async def serve(settings: Settings, store: Store, stop: asyncio.Event, source: str = "settings") -> None:
    """Collect, weigh and serve until `stop` is set; `source` names the settings in errors.

    Raises ConfigError or StartError before anything is served.
    """
    fleet = discover(settings, source)
    metrics = XdsMetrics()
    cache = SnapshotCache()
    outage = Outage("the store")
    metrics.snapshot_age.set_function(lambda: cache.age)
    async with (
        serve_metrics(metrics, settings.xds_metrics),
        Collector(fleet, settings.collect, store, metrics, outage) as collector,
        serve_ads(cache, metrics, settings.xds_address),
        asyncio.TaskGroup() as group,
    ):
        publisher = Publisher(settings, fleet, store, lambda: collector.loads, cache, metrics, outage)
        loops = [group.create_task(collector.run()), group.create_task(publisher.run())]
        _LOG.info("serving %d endpoints on %s", len(fleet.endpoints), settings.xds_address)
        await stop.wait()
        for loop in loops:
            loop.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 when asked to stop, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="xds_server", description="kvpilot's xDS server")
    parser.add_argument("-c", "--config", type=Path, required=True, help="kvpilot.yaml")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        uvloop.run(_until_signalled(settings_file.load(path), str(path)))
    except KvpilotError as error:
        sys.stderr.write(f"xds_server: {error}\n")
        return 2
    return 0


async def _until_signalled(settings: Settings, source: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = RedisStore(settings.redis_url)
    try:
        await serve(settings, store, stop, source)
    finally:
        await store.close()
