from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from fleet import settings_file
from kvpilot.bench.arms import ECHOED, PLAIN
from kvpilot.bench.cases import Site
from kvpilot.bench.fleets import settings_data
from kvpilot.bench.routes import ECHO_CLUSTER, snapshot
from xds_server.resources.messages import cluster, override_host
from xds_server.resources.routes import EXT_PROC_FILTER
from xds_server.snapshot import CLUSTER, ROUTE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from google.protobuf.any_pb2 import Any

    from xds_server.snapshot import Snapshot


def made(folder: Path, mode: str) -> Snapshot:
    return snapshot(settings_file.parse(settings_data(Site(3, mode, "grpc"), folder), "bench"))


def hosts_of(snapshot: Snapshot) -> dict[str, route_pb2.VirtualHost]:
    (body,) = snapshot.bodies[ROUTE].values()
    return {host.name: host for host in route_pb2.RouteConfiguration.FromString(body).virtual_hosts}


def overrides(configs: Mapping[str, Any]) -> ext_proc_pb2.ExtProcOverrides:
    route = ext_proc_pb2.ExtProcPerRoute()
    assert configs[EXT_PROC_FILTER].Unpack(route)
    return route.overrides


def policy_of(snapshot: Snapshot) -> override_host.OverrideHost:
    """Read as dataclasses: xds-protos does not know all of its fields yet."""
    message = cluster.Cluster.parse(snapshot.bodies[CLUSTER]["bench/only"])
    assert message.load_balancing_policy is not None
    (policy,) = message.load_balancing_policy.policies
    assert policy.typed_extension_config is not None
    assert policy.typed_extension_config.typed_config is not None
    unpacked = policy.typed_extension_config.typed_config.unpack()
    assert isinstance(unpacked, override_host.OverrideHost)
    return unpacked


def test_adds_two_names_to_the_products_own_route(tmp_path: Path) -> None:
    bodies = made(tmp_path, "buffered").bodies
    hosts = hosts_of(made(tmp_path, "buffered"))
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


def test_asks_picker_and_echo_as_a_gateway_does(tmp_path: Path) -> None:
    hosts = hosts_of(made(tmp_path, "duplex"))
    picked = overrides(hosts["all"].typed_per_filter_config)
    for mode in (picked.processing_mode.request_body_mode, picked.processing_mode.response_body_mode):
        assert mode == ProcessingMode.FULL_DUPLEX_STREAMED
    assert picked.processing_mode.request_trailer_mode == ProcessingMode.SEND
    assert not picked.HasField("grpc_service")
    echoed = overrides(hosts[ECHOED].typed_per_filter_config)
    assert echoed.grpc_service.envoy_grpc.cluster_name == ECHO_CLUSTER
    assert echoed.processing_mode == picked.processing_mode
    assert echoed.metadata_options == picked.metadata_options


def test_takes_a_gateways_pick_but_no_pick_id_that_would_be_logged(tmp_path: Path) -> None:
    asked = overrides(hosts_of(made(tmp_path, "duplex"))["all"].typed_per_filter_config)
    assert list(asked.metadata_options.receiving_namespaces.untyped) == ["envoy.lb"]


def test_tells_who_serves_only_where_it_asks_as_a_gateway(tmp_path: Path) -> None:
    plain, told = policy_of(made(tmp_path, "buffered")), policy_of(made(tmp_path, "duplex"))
    assert told.selected_host_key is not None
    assert told.selected_host_key.path[0].key == "x-gateway-destination-endpoint-served"
    told.selected_host_key = None
    assert told == plain
