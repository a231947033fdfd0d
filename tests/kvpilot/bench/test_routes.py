from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from envoy.config.route.v3 import route_pb2

from fleet import settings_file
from kvpilot.bench.arms import ECHOED, PLAIN
from kvpilot.bench.cases import Site
from kvpilot.bench.fleets import settings_data
from kvpilot.bench.routes import ECHO_CLUSTER, snapshot
from xds_server.snapshot import CLUSTER, ROUTE

if TYPE_CHECKING:
    from pathlib import Path


def test_adds_two_names_to_the_products_own_route(tmp_path: Path) -> None:
    settings = settings_file.parse(settings_data(Site(3, "buffered", "grpc"), tmp_path), "bench")
    bodies = snapshot(settings).bodies
    (body,) = bodies[ROUTE].values()
    hosts = {host.name: host for host in route_pb2.RouteConfiguration.FromString(body).virtual_hosts}
    assert {tuple(host.domains) for host in hosts.values()} == {("*",), (PLAIN,), (ECHOED,)}
    steered = hosts.pop("all")
    assert not steered.typed_per_filter_config
    for host in hosts.values():
        assert list(host.routes) == list(steered.routes)
        assert len(host.typed_per_filter_config) == 1
    assert ECHO_CLUSTER in bodies[CLUSTER]
    assert f"{tmp_path}/picker.sock.echo".encode() in bodies[CLUSTER][ECHO_CLUSTER]


@pytest.mark.parametrize("transport", ["grpc", "http2"])
def test_says_the_same_whatever_carries_the_exchange(tmp_path: Path, transport: str) -> None:
    settings = settings_file.parse(settings_data(Site(3, "buffered", transport), tmp_path), "bench")
    assert b"health" not in bytes(snapshot(settings).bodies[ROUTE]["kvpilot"])
    assert len(snapshot(settings).bodies[CLUSTER]) == 4
