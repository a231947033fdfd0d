"""Which cluster's endpoints a gateway means, where its route's cluster is not one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.address import split

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fleet.model import Fleet


class Pools:
    """The clusters of one fleet, and how each may be meant."""

    def __init__(self, fleet: Fleet) -> None:
        self._addresses: Mapping[str, frozenset[str]] = {
            cluster: frozenset(endpoint.address for endpoint in endpoints)
            for cluster, endpoints in fleet.clusters.items()
            if endpoints
        }

    def meant(self, route: str, port: str, subset: Collection[str] | None) -> str:
        """The cluster that is meant; '' where nobody can tell.

        By the `route`'s own cluster, if it is one of ours; else by the `port` that the gateway asks on; else
        by the endpoints that it allows; else there is only one.
        """
        for named in (route, port):
            if named in self._addresses:
                return named
        for cluster, addresses in self._addresses.items():
            if subset and not addresses.isdisjoint(subset):
                return cluster
        return next(iter(self._addresses)) if len(self._addresses) == 1 else ""

    def selected(self, cluster: str, hosts: Sequence[str]) -> tuple[str, ...]:
        """The cluster's endpoints that are at one of `hosts`, given as `ip` or `ip:port`; for tests."""
        addresses = self._addresses.get(cluster, frozenset())
        return tuple(a for a in sorted(addresses) if a in hosts or split(a)[0] in hosts)
