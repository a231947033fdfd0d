"""The user's settings made complete for one machine: every address chosen, once and for all children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet import address as addresses
from kvpilot.mesh.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fleet.settings import PoolSettings, Settings


def resolve(settings: Settings, runtime: Path, redis_url: str) -> Settings:
    """The same settings with nothing left open.

    Emulated pools without endpoints get free loopback ports, and so do those that are to serve gRPC and do
    not say where; the xDS server and the picker get sockets in `runtime` unless the user said where, and the
    picker a key there; Redis is `redis_url`; clients are told who answered them.
    """
    wanted = sum(_missing(pool) + _missing_grpc(pool) for _, _, pool in settings.pools())
    ports = iter(free_ports(wanted, _spoken_for(settings)))
    changes: dict[str, object] = {
        "models": tuple(
            model.model_copy(
                update={
                    "versions": tuple(
                        version.model_copy(update={"pools": tuple(_placed(p, ports) for p in version.pools)})
                        for version in model.versions
                    )
                }
            )
            for model in settings.models
        ),
        "redis_url": redis_url,
        "envoy": settings.envoy.model_copy(update={"debug_headers": True}),
    }
    for server in ("xds", "picker"):
        if f"{server}_address" not in settings.model_fields_set:
            changes[f"{server}_address"] = f"unix:{runtime / server}.sock"
    if settings.picker.key_file is None:
        changes["picker"] = settings.picker.model_copy(update={"key_file": runtime / "key"})
    return settings.model_copy(update=changes)


def listening(settings: Settings) -> dict[str, str]:
    """Every `host:port` that the servers will listen on, by the settings field that says so."""
    fields = ["listen", "xds_metrics", "picker_metrics"]
    fields += [name for name in ("xds_address", "picker_address") if name in settings.model_fields_set]
    found = {name: getattr(settings, name) for name in fields}
    gateways = settings.endpoint_picker
    found |= {f"endpoint_picker.pool_addresses.{address}": address for address in gateways.pool_addresses}
    found["endpoint_picker.health_address"] = gateways.health_address
    for name in [name for name in ("picker_address", "picker_metrics") if found.get(name) is not None]:
        for number in range(1, settings.picker.workers):
            found[f"{name} of worker {number}"] = addresses.of_worker(found[name], number)
    return {name: a for name, a in found.items() if a is not None and addresses.unix_path(a) is None}


def _missing(pool: PoolSettings) -> int:
    return pool.emulated.count if pool.emulated is not None and not pool.endpoints else 0


def _missing_grpc(pool: PoolSettings) -> int:
    asked = pool.emulated is not None and pool.emulated.grpc and not pool.grpc_addresses
    return pool.emulated.count if pool.emulated is not None and asked else 0


def _placed(pool: PoolSettings, ports: Iterator[int]) -> PoolSettings:
    changes = {"endpoints": _missing(pool), "grpc_endpoints": _missing_grpc(pool)}
    chosen = {
        field: tuple(f"{LOOPBACK}:{next(ports)}" for _ in range(wanted))
        for field, wanted in changes.items()
        if wanted
    }
    return pool.model_copy(update=chosen) if chosen else pool


def _spoken_for(settings: Settings) -> frozenset[int]:
    endpoints = [a for _, _, pool in settings.pools() for a in (*pool.endpoints, *pool.grpc_addresses)]
    return frozenset(addresses.split(a)[1] for a in [*endpoints, *listening(settings).values()])
