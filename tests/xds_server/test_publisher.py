from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from fleet.model import RATE_STALE_SECONDS, Load, Rate, Weight
from fleet.outage import StoreOutage
from fleet.settings_file import parse
from fleet.store.memory import MemoryStore
from tests.support import AwayStore
from xds_server.cache import SnapshotCache
from xds_server.metrics import XdsMetrics
from xds_server.publisher import Publisher
from xds_server.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Snapshot

if TYPE_CHECKING:
    from fleet.settings import Settings

NOW = 1_000.0
H100, A100 = "10.0.0.1:8000", "10.0.0.2:8000"


def settings(**more: Any) -> Settings:
    pools = [
        {"name": "h100", "gpu": "H100-80GB", "endpoints": [H100]},
        {"name": "a100", "gpu": "A100-80GB", "endpoints": [A100]},
    ]
    versions = [{"name": "stable", "pools": pools}]
    return parse({"models": [{"name": "m", "versions": versions}], **more}, "test")


class Made:
    def __init__(self, store: MemoryStore | None = None, **more: Any) -> None:
        self.store = store or MemoryStore()
        self.cache = SnapshotCache()
        self.metrics = XdsMetrics()
        self.loads: dict[str, Load] = {}
        config = settings(**more)
        outage = StoreOutage(self.metrics.registry, "kvpilot_xds")
        self.publisher = Publisher(config, config.fleet(), self.store, self.loads, self.cache, outage)

    @property
    def snapshot(self) -> Snapshot:
        assert self.cache.snapshot is not None
        return self.cache.snapshot

    @property
    def weights(self) -> dict[str, int]:
        """What Envoy is told of the healthy endpoints of m/stable."""
        body = self.snapshot.bodies[ENDPOINT]["m/stable"]
        members = [
            member
            for locality in endpoint_pb2.ClusterLoadAssignment.FromString(body).endpoints
            for member in locality.lb_endpoints
            if member.health_status == health_check_pb2.HEALTHY
        ]
        sockets = [(m.endpoint.address.socket_address, m.load_balancing_weight.value) for m in members]
        return {f"{socket.address}:{socket.port_value}": weight for socket, weight in sockets}


async def test_serves_prior_weights_at_once() -> None:
    made = Made()
    await made.publisher.resume()
    assert set(made.snapshot.bodies[CLUSTER]) == {"kvpilot-picker", "kvpilot-picker-log", "m/stable"}
    priors = {a: e.prior.prefill for a, e in settings().fleet().endpoints.items()}
    weights = made.weights
    assert weights.keys() == priors.keys()
    assert weights[A100] / weights[H100] == pytest.approx(priors[A100] / priors[H100], rel=0.01)
    assert weights[A100] < weights[H100]


async def test_a_learned_rate_changes_the_endpoints_only() -> None:
    made = Made()
    await made.publisher.resume()
    before = made.snapshot
    await made.store.write("m", {A100: Rate(1e9, 0.01, NOW, 5)})
    await made.publisher.tick(NOW)
    assert {k for k in before.versions if before.versions[k] != made.snapshot.versions[k]} == {ENDPOINT}


async def test_a_rate_learned_long_ago_may_be_another_machines_and_counts_for_nothing() -> None:
    made = Made()
    await made.publisher.resume()
    before = made.weights
    await made.store.write("m", {A100: Rate(1e9, 0.01, NOW - RATE_STALE_SECONDS - 1, 5)})
    await made.publisher.tick(NOW)
    assert made.weights == before


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
    made.loads[H100] = Load(NOW, ready=False, reason="refused")
    await made.publisher.tick(NOW)
    assert made.snapshot.versions[ENDPOINT] != first.versions[ENDPOINT]
    assert caplog.text.count("going on without the store") == 1
    assert made.metrics.registry.get_sample_value("kvpilot_xds_store_failures_total") == 3
    store.away = False
    await made.publisher.tick(NOW + 1)
    assert set(await store.read("m", Weight)) == {A100}


async def test_rates_learned_before_an_outage_stay() -> None:
    store = AwayStore(away=False)
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
