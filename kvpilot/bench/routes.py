"""Envoy's configuration for a benchmark: the product's own, with two more names that its route answers to.

See `arms` for what they stand for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fleet.names import PICKER_CLUSTER
from kvpilot.bench.arms import ECHOED, PLAIN, echo_address
from xds_server.resources import fixed_resources, weighted_resources
from xds_server.resources.clusters import picker_cluster
from xds_server.resources.messages import Any, cluster, ext_proc, grpc_to, route
from xds_server.resources.routes import EXT_PROC_FILTER
from xds_server.snapshot import ROUTE, Resource, Snapshot

if TYPE_CHECKING:
    from fleet.settings import Settings

ECHO_CLUSTER = f"{PICKER_CLUSTER}-echo"


def snapshot(settings: Settings) -> Snapshot:
    """All resources; every endpoint has the same weight."""
    fleet = settings.fleet()
    fixed = tuple(
        replace(resource, body=_more_names(resource.body)) if resource.type_url == ROUTE else resource
        for resource in fixed_resources(settings, fleet)
    )
    weights = dict.fromkeys(fleet.endpoints, 1)
    return Snapshot((*fixed, _echo_cluster(settings), *weighted_resources(fleet, weights)))


def _more_names(body: bytes) -> bytes:
    routes = route.RouteConfiguration().parse(body)
    (steered,) = routes.virtual_hosts
    asks_the_echo = ext_proc.ExtProcPerRoute(
        overrides=ext_proc.ExtProcOverrides(grpc_service=grpc_to(ECHO_CLUSTER))
    )
    for name, filter_config in (
        (PLAIN, ext_proc.ExtProcPerRoute(disabled=True)),
        (ECHOED, asks_the_echo),
    ):
        routes.virtual_hosts.append(
            replace(
                steered,
                name=name,
                domains=[name],
                typed_per_filter_config={EXT_PROC_FILTER: Any.pack(filter_config)},
            )
        )
    return bytes(routes)


def _echo_cluster(settings: Settings) -> Resource:
    like = picker_cluster(settings.model_copy(update={"picker_address": echo_address(settings)}))
    message = cluster.Cluster().parse(like.body)
    message.name = ECHO_CLUSTER
    if message.load_assignment is not None:
        message.load_assignment.cluster_name = ECHO_CLUSTER
    return replace(like, name=ECHO_CLUSTER, body=bytes(message))
