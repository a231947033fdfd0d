"""Which cluster's endpoints a gateway means, where its route's cluster is not one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.address import split
from fleet.model import cluster_name, grpc_cluster_name

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleet.model import Fleet


class Pools:
    """The clusters of one fleet, and how each may be meant."""

    def __init__(self, fleet: Fleet) -> None:
        addresses = {c: (e.address for e in members) for c, members in fleet.clusters.items()}
        addresses |= {c: (e.grpc_address for e in members) for c, members in fleet.grpc_clusters.items()}
        dialled = {cluster: frozenset(members) for cluster, members in addresses.items()}
        self._addresses = {cluster: members for cluster, members in dialled.items() if members}
        self._grpc = {  # by the cluster of the same version for everything else
            cluster_name(model.name, version.name): grpc_cluster_name(model.name, version.name)
            for model in fleet.models
            for version in model.versions
        }

    def meant(self, route: str, asked: str, subset: Collection[str] | None, *, grpc: bool = False) -> str:
        """The cluster that is meant; '' where nobody can tell.

        By the `route`'s own cluster, if it is one of ours; else by the one that is `asked` for, by an address
        or a name of its own; else by the endpoints that are allowed; else there is only one. A gRPC request
        goes where the same version serves gRPC, if it does.
        """
        cluster = self._meant(route, asked, subset)
        served = self._grpc.get(cluster, "") if grpc else ""
        return served if served in self._addresses else cluster

    def _meant(self, route: str, asked: str, subset: Collection[str] | None) -> str:
        for named in (route, asked):
            if named in self._addresses:
                return named
        for cluster, addresses in self._addresses.items():
            if subset and not addresses.isdisjoint(subset):
                return cluster
        plain = [cluster for cluster in self._addresses if cluster in self._grpc]
        return plain[0] if len(plain) == 1 else ""

    def selected(self, cluster: str, hosts: Sequence[str]) -> tuple[str, ...]:
        """The cluster's endpoints that are at one of `hosts`, given as `ip` or `ip:port`; for tests."""
        addresses = self._addresses.get(cluster, frozenset())
        return tuple(a for a in sorted(addresses) if a in hosts or split(a)[0] in hosts)
