"""EDS: the endpoints of a cluster, weighted by what they can take now.

The one resource that is built anew every second, so it is built from upb messages: 1,000 endpoints take a few
milliseconds, as dataclasses they took some hundred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy.config.core.v3.health_check_pb2 import HEALTHY, UNHEALTHY
from envoy.config.endpoint.v3 import endpoint_pb2

from fleet import address as addresses
from xds_server.snapshot import ENDPOINT, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Endpoint

_EJECTED_WEIGHT = 1
"""An ejected endpoint stays listed, so that its running answers finish; Envoy refuses a weight of 0."""


def load_assignment(
    name: str, endpoints: tuple[Endpoint, ...], weights: Mapping[str, int], *, grpc: bool = False
) -> Resource:
    """The endpoints of cluster `name`, a locality per pool; those without a weight are UNHEALTHY.

    With `grpc` they are dialled at their gRPC addresses; weights go by the endpoint all the same.
    """
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    pools: dict[str, list[Endpoint]] = {}
    for member in endpoints:
        pools.setdefault(member.pool, []).append(member)
    for pool, members in pools.items():
        _add_locality(message, pool, members, weights, grpc=grpc)
    return Resource(ENDPOINT, name, message.SerializeToString(deterministic=True))


def empty_load_assignment(name: str) -> bytes:
    """What to answer for a cluster we do not know: without it Envoy's warming would wait 15 s."""
    body: bytes = endpoint_pb2.ClusterLoadAssignment(cluster_name=name).SerializeToString()
    return body


def _add_locality(
    message: endpoint_pb2.ClusterLoadAssignment,
    pool: str,
    members: list[Endpoint],
    weights: Mapping[str, int],
    *,
    grpc: bool,
) -> None:
    locality = message.endpoints.add()
    locality.locality.zone = pool
    # Our round_robin ignores it; gRPC clients of the same ADS skip a locality without a weight.
    locality.load_balancing_weight.value = sum(weights.get(m.address, _EJECTED_WEIGHT) for m in members)
    for member in members:
        weight = weights.get(member.address)
        added = locality.lb_endpoints.add(health_status=UNHEALTHY if weight is None else HEALTHY)
        added.load_balancing_weight.value = weight or _EJECTED_WEIGHT
        host, port = addresses.split(member.grpc_address if grpc else member.address)
        socket_address = added.endpoint.address.socket_address
        socket_address.address, socket_address.port_value = host, port
