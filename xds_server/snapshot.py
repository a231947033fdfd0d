"""One consistent set of Envoy configuration, and its versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from fleet.errors import KvpilotError

_TYPES = "type.googleapis.com/envoy.config."
CLUSTER = _TYPES + "cluster.v3.Cluster"
ENDPOINT = _TYPES + "endpoint.v3.ClusterLoadAssignment"
LISTENER = _TYPES + "listener.v3.Listener"
ROUTE = _TYPES + "route.v3.RouteConfiguration"

PUSH_ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""Make before break: what is referred to is sent before what refers to it."""


class SnapshotError(KvpilotError):
    """Configuration that refers to something it does not hold: a mistake of ours, never sent to anyone."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One named piece of configuration, serialized once for all Envoys; `needs` are (type URL, name)."""

    type_url: str
    name: str
    body: bytes
    needs: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """Everything Envoys are to hold. Raises SnapshotError unless each need is met and each name is unique."""

    resources: tuple[Resource, ...]

    def __post_init__(self) -> None:
        held = {(r.type_url, r.name) for r in self.resources}
        if len(held) != len(self.resources):
            raise SnapshotError("a name occurs twice in one type of configuration")
        for resource in self.resources:
            missing = sorted(resource.needs - held)
            if missing:
                kind, name = missing[0]
                raise SnapshotError(
                    f"{_short(resource.type_url)} {resource.name} needs {_short(kind)} {name}"
                )

    @cached_property
    def bodies(self) -> dict[str, dict[str, bytes]]:
        """Serialized resources by type URL and name."""
        found: dict[str, dict[str, bytes]] = {type_url: {} for type_url in PUSH_ORDER}
        for resource in sorted(self.resources, key=lambda r: r.name):
            found[resource.type_url][resource.name] = resource.body
        return found

    @cached_property
    def versions(self) -> dict[str, str]:
        """Version by type URL: a hash of the content, so that a restarted server names the same the same."""
        return {type_url: _hash(bodies) for type_url, bodies in self.bodies.items()}


def _hash(bodies: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, body in bodies.items():
        digest.update(f"{len(name)}:{len(body)}:{name}".encode() + body)
    return digest.hexdigest()[:16]


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]


def short_type(type_url: str) -> str:
    """cds, eds, lds or rds: what people call the type, for metrics and logs."""
    return {CLUSTER: "cds", ENDPOINT: "eds", LISTENER: "lds", ROUTE: "rds"}.get(type_url, "other")
