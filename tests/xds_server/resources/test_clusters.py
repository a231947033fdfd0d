from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from fleet.settings import PickerSettings
from tests.support import one_pool_settings
from xds_server.resources.clusters import FROZEN_SECONDS, log_cluster, picker_cluster, version_cluster
from xds_server.snapshot import ENDPOINT


def parsed(resource: Any) -> Any:
    return cluster_pb2.Cluster.FromString(resource.body)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("unix:/run/p.sock", cluster_pb2.Cluster.STATIC),
        ("127.0.0.1:18001", cluster_pb2.Cluster.STATIC),
        ("picker.llm.svc:18001", cluster_pb2.Cluster.STRICT_DNS),
    ],
)
def test_the_picker_may_be_a_socket_an_address_or_a_name(address: str, kind: int) -> None:
    message = parsed(picker_cluster(one_pool_settings(picker_address=address)))
    host = message.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address
    assert message.type == kind
    found = host.pipe.path or host.socket_address.address
    assert found == address.removeprefix("unix:").removesuffix(":18001")


@pytest.mark.parametrize(
    ("address", "second"),
    [("unix:/run/p.sock", "/run/p.sock.1"), ("127.0.0.1:18001", "18002"), ("[::1]:18001", "18002")],
)
def test_every_worker_of_the_picker_is_an_endpoint_for_picks_and_for_logs(address: str, second: str) -> None:
    settings = one_pool_settings(picker_address=address, picker={"workers": 3, "hold_seconds": 0})
    for resource in (picker_cluster(settings), log_cluster(settings)):
        hosts = parsed(resource).load_assignment.endpoints[0].lb_endpoints
        assert len(hosts) == 3
        found = hosts[1].endpoint.address
        assert second == (found.pipe.path or str(found.socket_address.port_value))
    limit = parsed(picker_cluster(settings)).circuit_breakers.thresholds[0].max_requests.value
    assert limit == 3 * 64


def test_a_failing_picker_is_left_alone_within_a_third_of_a_second() -> None:
    message = parsed(picker_cluster(one_pool_settings()))
    check = message.health_checks[0]
    assert check.interval.ToTimedelta().total_seconds() + check.timeout.ToTimedelta().total_seconds() < 0.36
    assert check.no_traffic_interval == check.interval
    assert check.unhealthy_threshold.value == 1
    assert message.common_lb_config.healthy_panic_threshold.value == 0
    assert message.common_lb_config.HasField("healthy_panic_threshold")


def test_connections_to_a_frozen_picker_are_closed_with_all_that_it_holds() -> None:
    packed = parsed(picker_cluster(one_pool_settings())).typed_extension_protocol_options
    (any_options,) = packed.values()
    options = http_protocol_options_pb2.HttpProtocolOptions.FromString(any_options.value)
    keepalive = options.explicit_http_config.http2_protocol_options.connection_keepalive
    assert keepalive.interval.ToTimedelta().total_seconds() == FROZEN_SECONDS
    assert keepalive.timeout.ToTimedelta().total_seconds() == FROZEN_SECONDS


def test_so_many_picks_run_at_once_as_are_decided_and_held() -> None:
    settings = one_pool_settings()
    never = settings.model_copy(update={"picker": PickerSettings(hold_seconds=0)})
    limits = [parsed(picker_cluster(s)).circuit_breakers.thresholds[0] for s in (settings, never)]
    assert [limit.max_requests.value for limit in limits] == [64 + settings.picker.held_max, 64]


def test_log_streams_do_not_use_up_the_limit_on_picks() -> None:
    message = parsed(log_cluster(one_pool_settings()))
    assert message.name != parsed(picker_cluster(one_pool_settings())).name
    assert not message.circuit_breakers.thresholds[0].HasField("max_requests")


def test_a_version_retries_by_budget_and_needs_its_endpoints() -> None:
    resource = version_cluster("m/v", one_pool_settings())
    thresholds = parsed(resource).circuit_breakers.thresholds[0]
    assert thresholds.retry_budget.min_retry_concurrency.value > 3
    assert thresholds.max_requests.value > 1024
    assert resource.needs == {(ENDPOINT, "m/v")}


def http_options(message: Any) -> Any:
    (packed,) = message.typed_extension_protocol_options.values()
    return http_protocol_options_pb2.HttpProtocolOptions.FromString(packed.value).explicit_http_config


def test_a_versions_grpc_cluster_is_the_same_over_http2_and_without_pings() -> None:
    plain = parsed(version_cluster("m/v", one_pool_settings()))
    resource = version_cluster("m/v/grpc", one_pool_settings(), grpc=True)
    grpc = parsed(resource)
    assert not plain.typed_extension_protocol_options
    assert http_options(grpc).HasField("http2_protocol_options")
    assert not http_options(grpc).http2_protocol_options.HasField("connection_keepalive")
    assert resource.needs == {(ENDPOINT, "m/v/grpc")}
    grpc.ClearField("typed_extension_protocol_options")
    grpc.name = plain.name
    assert grpc == plain
