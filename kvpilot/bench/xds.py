"""`python -m kvpilot.bench.xds -c FILE`: gives Envoy the benchmark's configuration, once.

A process of its own, as in life; it does not collect, so that a large fleet's scrapes take nothing from the
machine that is measured.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fleet.process import main
from kvpilot.bench.routes import snapshot
from xds_server.cache import SnapshotCache
from xds_server.metrics import XdsMetrics
from xds_server.server import serve_ads

if TYPE_CHECKING:
    import asyncio

    from fleet.settings import Settings


async def serve(settings: Settings, _source: str, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    cache = SnapshotCache()
    cache.publish(snapshot(settings))
    async with serve_ads(cache, XdsMetrics(), settings.xds_address):
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main("kvpilot.bench.xds", "Envoy's configuration for a benchmark", serve))
