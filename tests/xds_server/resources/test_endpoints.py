from __future__ import annotations

from dataclasses import replace

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from fleet.model import Endpoint, Hardware
from xds_server.resources.endpoints import empty_load_assignment, load_assignment


def endpoint(address: str, pool: str) -> Endpoint:
    return Endpoint(address, "m", "stable", pool, Hardware("H100-80GB"))


MEMBERS = (endpoint("10.0.0.1:80", "a"), endpoint("[fd00::2]:80", "b"), endpoint("10.0.0.3:80", "a"))


def parsed(weights: dict[str, int]) -> endpoint_pb2.ClusterLoadAssignment:
    return endpoint_pb2.ClusterLoadAssignment.FromString(load_assignment("m/stable", MEMBERS, weights).body)


def test_each_pool_is_a_locality() -> None:
    message = parsed({"10.0.0.1:80": 5, "[fd00::2]:80": 7, "10.0.0.3:80": 11})
    assert {group.locality.zone: group.load_balancing_weight.value for group in message.endpoints} == {
        "a": 16,
        "b": 7,
    }


def test_an_ejected_endpoint_is_listed_as_unhealthy_and_never_with_weight_zero() -> None:
    message = parsed({"10.0.0.1:80": 5, "[fd00::2]:80": 7})
    found = {
        (e.endpoint.address.socket_address.address, e.health_status): e.load_balancing_weight.value
        for group in message.endpoints
        for e in group.lb_endpoints
    }
    assert found == {
        ("10.0.0.1", health_check_pb2.HEALTHY): 5,
        ("10.0.0.3", health_check_pb2.UNHEALTHY): 1,
        ("fd00::2", health_check_pb2.HEALTHY): 7,
    }


def test_an_unknown_cluster_is_empty() -> None:
    message = endpoint_pb2.ClusterLoadAssignment.FromString(empty_load_assignment("x"))
    assert message.cluster_name == "x"
    assert not message.endpoints


def test_grpc_is_dialled_at_its_own_address_with_the_endpoints_weight_and_health() -> None:
    members = tuple(replace(m, grpc_address=f"10.9.9.{n}:8001") for n, m in enumerate(MEMBERS))
    weights = {"10.0.0.1:80": 5, "[fd00::2]:80": 7}
    made = load_assignment("m/stable/grpc", members, weights, grpc=True)
    message = endpoint_pb2.ClusterLoadAssignment.FromString(made.body)
    found = {
        (e.endpoint.address.socket_address.address, e.health_status): e.load_balancing_weight.value
        for group in message.endpoints
        for e in group.lb_endpoints
    }
    assert message.cluster_name == "m/stable/grpc"
    assert found == {
        ("10.9.9.0", health_check_pb2.HEALTHY): 5,
        ("10.9.9.2", health_check_pb2.UNHEALTHY): 1,
        ("10.9.9.1", health_check_pb2.HEALTHY): 7,
    }
