from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fleet.errors import StoreError
from fleet.model import Load, Rate, Weight
from fleet.settings import Settings, parse
from fleet.store.memory import MemoryStore
from xds_server.cache import SnapshotCache
from xds_server.metrics import XdsMetrics
from xds_server.publisher import Publisher
from xds_server.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Snapshot

if TYPE_CHECKING:
    import pytest

NOW = 1_000.0
H100, A100 = "10.0.0.1:8000", "10.0.0.2:8000"


def settings(**more: Any) -> Settings:
    pools = [
        {"name": "h100", "gpu": "H100-80GB", "endpoints": [H100]},
        {"name": "a100", "gpu": "A100-80GB", "endpoints": [A100]},
    ]
    versions = [{"name": "stable", "pools": pools}]
    return parse({"models": [{"name": "m", "versions": versions}], **more}, "test")


class AwayStore(MemoryStore):
    away = True

    async def write(self, model: str, records: Any) -> None:
        if self.away:
            raise StoreError("gone")
        await super().write(model, records)

    async def read(self, model: str, kind: Any) -> Any:
        if self.away:
            raise StoreError("gone")
        return await super().read(model, kind)


class Made:
    def __init__(self, store: MemoryStore | None = None, **more: Any) -> None:
        self.store = store or MemoryStore()
        self.cache = SnapshotCache()
        self.metrics = XdsMetrics()
        self.loads: dict[str, Load] = {}
        config = settings(**more)
        self.publisher = Publisher(
            config, config.fleet(), self.store, lambda: self.loads, self.cache, self.metrics
        )

    @property
    def snapshot(self) -> Snapshot:
        assert self.cache.snapshot is not None
        return self.cache.snapshot


async def test_serves_prior_weights_at_once() -> None:
    made = Made()
    await made.publisher.resume()
    assert set(made.snapshot.bodies[CLUSTER]) == {"kvpilot-picker", "kvpilot-picker-log", "m/stable"}


async def test_a_learned_rate_changes_the_endpoints_only() -> None:
    made = Made()
    await made.publisher.resume()
    before = made.snapshot
    await made.store.write("m", {A100: Rate(1e9, 0.01, NOW, 5)})
    await made.publisher.tick(NOW)
    assert {k for k in before.versions if before.versions[k] != made.snapshot.versions[k]} == {ENDPOINT}


async def test_keeps_the_weights_in_the_store_and_goes_on_from_them() -> None:
    first = Made()
    await first.publisher.resume()
    await first.store.write("m", {A100: Rate(1e9, 0.01, NOW, 5)})
    for step in range(30):
        await first.publisher.tick(NOW + step)
    stored = await first.store.read("m", Weight)
    assert stored[A100].value > stored[H100].value
    assert stored[A100].at == NOW + 29
    second = Made(first.store)
    await second.publisher.resume()
    await second.publisher.tick(NOW + 30)
    assert second.snapshot.versions[ENDPOINT] == first.snapshot.versions[ENDPOINT]


async def test_an_endpoint_ejected_before_a_restart_stays_ejected() -> None:
    made = Made()
    await made.store.write("m", {H100: Load(time.time(), ready=False)})
    await made.publisher.resume()
    await made.publisher.tick(time.time())
    assert set(await made.store.read("m", Weight)) == {A100}


async def test_without_a_store_it_weighs_from_what_it_knows(caplog: pytest.LogCaptureFixture) -> None:
    store = AwayStore()
    made = Made(store)
    await made.publisher.resume()
    first = made.snapshot
    made.loads = {H100: Load(NOW, ready=False, reason="refused")}
    await made.publisher.tick(NOW)
    assert made.snapshot.versions[ENDPOINT] != first.versions[ENDPOINT]
    assert caplog.text.count("is away") == 1
    assert made.metrics.registry.get_sample_value("kvpilot_collect_store_failures_total") == 3
    store.away = False
    await made.publisher.tick(NOW + 1)
    assert set(await store.read("m", Weight)) == {A100}


async def test_rates_learned_before_an_outage_stay() -> None:
    store = AwayStore()
    store.away = False
    made = Made(store)
    await store.write("m", {A100: Rate(1e9, 0.01, NOW, 5)})
    await made.publisher.resume()
    for step in range(30):
        await made.publisher.tick(NOW + step)
    learned = made.snapshot.versions
    store.away = True
    for step in range(30, 40):
        await made.publisher.tick(NOW + step)
    assert made.snapshot.versions == learned


async def test_who_chooses_is_switched_by_routes_and_weights_alone() -> None:
    steered, weighted = Made(), Made(steering="weighted")
    for made in (steered, weighted):
        await made.publisher.resume()
    one, two = steered.snapshot.versions, weighted.snapshot.versions
    assert one[ROUTE] != two[ROUTE]
    assert {k: one[k] for k in (CLUSTER, ENDPOINT, LISTENER)} == {
        k: two[k] for k in (CLUSTER, ENDPOINT, LISTENER)
    }
