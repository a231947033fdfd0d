"""Envoy's whole configuration, built from the settings, the fleet and its weights.

The node's bootstrap knows only the xDS cluster; listener, routes, clusters and endpoints come from here.
Each module builds one kind of resource; only what depends on the weights (`endpoints`) changes while the
settings stay the same. Pure: the same input gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xds_server.resources.clusters import log_cluster, picker_cluster, version_cluster
from xds_server.resources.endpoints import load_assignment
from xds_server.resources.listener import http_listener
from xds_server.resources.routes import route_configuration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Fleet
    from fleet.settings import Settings
    from xds_server.snapshot import Resource


def fixed_resources(settings: Settings, fleet: Fleet) -> tuple[Resource, ...]:
    """All that stays while weights change: listener, routes and clusters."""
    versions = (version_cluster(name, settings) for name in fleet.clusters)
    grpc = (version_cluster(name, settings, grpc=True) for name in fleet.grpc_clusters)
    return (
        http_listener(settings),
        route_configuration(settings, fleet),
        picker_cluster(settings),
        log_cluster(settings),
        *versions,
        *grpc,
    )


def weighted_resources(fleet: Fleet, weights: Mapping[str, int]) -> tuple[Resource, ...]:
    """The endpoints of each cluster; those without a weight are ejected."""
    return (
        *(load_assignment(name, members, weights) for name, members in fleet.clusters.items()),
        *(
            load_assignment(name, members, weights, grpc=True)
            for name, members in fleet.grpc_clusters.items()
        ),
    )
