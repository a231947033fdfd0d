"""The settings of a benchmark's mesh: a fleet of loopback addresses, all of them one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvpilot.mesh.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from kvpilot.bench.cases import Site

_FAST = 1_000_000
"""Times the catalogue's rates: the upstream answers at once, and nothing must seem to queue there."""

_PER_NET = 250


def settings_data(site: Site, runtime: Path) -> dict[str, Any]:
    """What the settings file of the mesh in `runtime` says."""
    listen, metrics, upstream = free_ports(3)
    endpoints = [f"{loopback(n)}:{upstream}" for n in range(site.endpoints)]
    pool = {
        "name": "bench",
        "gpu": "H100-80GB",
        "endpoints": endpoints,
        "emulated": {"speed": _FAST},
    }
    return {
        "listen": f"{LOOPBACK}:{listen}",
        "picker_metrics": f"{LOOPBACK}:{metrics}",
        "redis_url": f"unix://{runtime}/redis.sock",
        "xds_address": f"unix:{runtime}/xds.sock",
        "picker_address": f"unix:{runtime}/picker.sock",
        "picker": {"transport": site.transport, "session_fast_path": site.mode == "session"},
        "endpoint_picker": {"mode": "always" if site.mode == "duplex" else "auto"},
        "models": [
            {
                "name": "bench",
                "parameters_billion": 8,
                "versions": [{"name": "only", "pools": [pool]}],
            }
        ],
    }


def loopback(number: int) -> str:
    """The address of the endpoint `number`; Linux has all of 127.0.0.0/8."""
    net, host = divmod(number, _PER_NET)
    return f"127.0.{net + 1}.{host + 1}"
