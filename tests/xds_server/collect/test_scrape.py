from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from fleet.model import Endpoint, Fleet, Hardware, Load, Model, Version
from fleet.outage import StoreOutage
from fleet.settings import CollectSettings
from fleet.store.memory import MemoryStore
from tests.support import AwayStore, free_port, until
from xds_server.collect.scrape import LARGEST_PAGE, Collector, Readings, scraping_client
from xds_server.metrics import XdsMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SETTINGS = CollectSettings(interval_seconds=0.05, timeout_seconds=0.2, failures_to_eject=2)


class Page:
    """A metrics page that answers what `text` and `status` say."""

    def __init__(self) -> None:
        self.port = free_port()
        self.text = "trtllm_num_requests_waiting 4\n"
        self.status = 200
        self.delay = 0.0

    async def get(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.delay)
        return web.Response(text=self.text, status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    made = Page()
    app = web.Application()
    app.router.add_get("/metrics", made.get)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


def endpoint(port: int, address: str = "10.0.0.1:8000") -> Endpoint:
    url = f"http://127.0.0.1:{port}/metrics"
    return Endpoint(address, "m", "stable", "p", Hardware("H100-80GB"), "trtllm-serve", url)


def fleet(*endpoints: Endpoint) -> Fleet:
    return Fleet((Model("m", (Version("stable", 100, endpoints),)),))


@asynccontextmanager
async def collecting(
    of: Fleet, store: MemoryStore, metrics: XdsMetrics | None = None
) -> AsyncIterator[Collector]:
    metrics = metrics or XdsMetrics()
    outage = StoreOutage(metrics.registry, "kvpilot_xds")
    async with scraping_client(SETTINGS) as client:
        yield Collector(of, SETTINGS, client, store, metrics, outage)


async def test_writes_what_every_endpoint_says(page: Page) -> None:
    store, metrics = MemoryStore(), XdsMetrics()
    both = fleet(endpoint(page.port), endpoint(page.port, "10.0.0.2:8000"))
    async with collecting(both, store, metrics) as collector:
        await collector.tick()
        loads = await store.read("m", Load)
        assert {a: load.waiting for a, load in loads.items()} == {"10.0.0.1:8000": 4, "10.0.0.2:8000": 4}
        assert collector.loads == loads
    assert metrics.registry.get_sample_value("kvpilot_collect_scrapes_total", {"result": "ok"}) == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 503},
        {"status": 302},
        {"text": "<html>"},
        {"delay": 1.0},
        {"text": "a 1\n" * (LARGEST_PAGE // 4 + 1)},
    ],
)
async def test_an_endpoint_that_fails_in_a_row_is_ejected_and_comes_back(
    page: Page, broken: dict[str, Any]
) -> None:
    good = vars(page).copy()
    store = MemoryStore()
    async with collecting(fleet(endpoint(page.port)), store) as collector:
        await collector.tick()
        vars(page).update(broken)
        await collector.tick()
        assert (await store.read("m", Load))["10.0.0.1:8000"].ready
        await collector.tick()
        ejected = (await store.read("m", Load))["10.0.0.1:8000"]
        assert not ejected.ready
        assert str(page.port) in ejected.reason or "Prometheus" in ejected.reason
        vars(page).update(good)
        await collector.tick()
        assert (await store.read("m", Load))["10.0.0.1:8000"].ready


async def test_one_dead_endpoint_does_not_hide_another(page: Page) -> None:
    store = MemoryStore()
    both = fleet(endpoint(page.port), endpoint(free_port(), "10.0.0.2:8000"))
    async with collecting(both, store) as collector:
        await collector.tick()
        await collector.tick()
    loads = await store.read("m", Load)
    assert loads["10.0.0.1:8000"].ready
    assert not loads["10.0.0.2:8000"].ready


async def test_a_store_that_is_away_is_said_once_and_stops_nothing(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    store, metrics = AwayStore(away=False), XdsMetrics()
    async with collecting(fleet(endpoint(page.port)), store, metrics) as collector:
        store.away = True
        for _ in range(3):
            await collector.tick()
        assert collector.loads["10.0.0.1:8000"].waiting == 4
        store.away = False
        with caplog.at_level(logging.INFO):
            await collector.tick()
    assert caplog.text.count("going on without the store") == 1
    assert caplog.text.count("the store is back") == 1
    assert metrics.registry.get_sample_value("kvpilot_xds_store_failures_total") == 3


async def test_scrapes_again_and_again(page: Page) -> None:
    store = MemoryStore()
    async with (
        collecting(fleet(endpoint(page.port)), store) as collector,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(collector.run())
        await until(lambda: collector.loads)
        page.text = "trtllm_num_requests_waiting 9\n"
        await until(lambda: collector.loads["10.0.0.1:8000"].waiting == 9)
        running.cancel()


def test_a_single_hiccup_changes_nothing() -> None:
    readings = Readings(failures_to_eject=2)
    readings.succeeded("a", Load(1.0, waiting=4))
    assert readings.failed("a", "timeout", 2.0) is None
    readings.succeeded("a", Load(3.0, waiting=5))
    assert readings.failed("a", "timeout", 4.0) is None
    assert readings.loads["a"] == Load(3.0, waiting=5)
