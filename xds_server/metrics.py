"""The xDS server's own Prometheus metrics, and the page that shows them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from fleet.errors import StartError
from fleet.settings import split_host_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class XdsMetrics:
    """One process's counters; each instance has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.streams = Gauge("kvpilot_xds_streams", "ADS streams open now", registry=r)
        self.pushes = Counter("kvpilot_xds_pushes", "Responses sent to Envoys", ["type"], registry=r)
        self.nacks = Counter("kvpilot_xds_nacks", "Responses that Envoys refused", ["type"], registry=r)
        self.snapshot_age = Gauge(
            "kvpilot_xds_snapshot_age_seconds", "Since the snapshot was last made or confirmed", registry=r
        )
        self.scrapes = Counter("kvpilot_collect_scrapes", "Scrapes of endpoints", ["result"], registry=r)
        self.store_failures = Counter(
            "kvpilot_collect_store_failures", "Reads and writes that the store did not serve", registry=r
        )


@asynccontextmanager
async def serve_metrics(metrics: XdsMetrics, address: str | None) -> AsyncIterator[None]:
    """Show the metrics at http://`address`/metrics inside the context; nothing where it is None.

    Raises StartError if the address cannot be listened on.
    """
    if address is None:
        yield
        return

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        host, port = split_host_port(address)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise StartError(f"xds_metrics {address}: cannot listen: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
