"""Envoy's bootstrap: where the xDS server is, and an admin page on any free loopback port.

Listener, routes, clusters and endpoints come over ADS.
"""

from __future__ import annotations

from typing import Any

from fleet import address as addresses
from fleet.names import XDS_CLUSTER
from kvpilot.mesh.ports import LOOPBACK, dialable

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_RECONNECT = {"base_interval": "0.1s", "max_interval": "2s"}
"""Envoy's own limit of 30 s would leave a restarted xDS server alone for that long."""


def bootstrap(xds_address: str, node_id: str) -> dict[str, Any]:
    """The bootstrap as plain data. `xds_address` is `host:port` or `unix:/path`; HTTP/2 without TLS."""
    on_ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": node_id, "cluster": "kvpilot"},
        "admin": {"address": _socket_address(LOOPBACK, 0)},
        "dynamic_resources": {"ads_config": _ads(), "lds_config": on_ads, "cds_config": on_ads},
        "static_resources": {"clusters": [_xds_cluster(xds_address)]},
    }


def _ads() -> dict[str, Any]:
    service = {
        "envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": {"retry_back_off": _RECONNECT}},
    }
    return {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}


def _xds_cluster(xds_address: str) -> dict[str, Any]:
    kind, address = _dial(xds_address)
    host = {"endpoint": {"address": address}}
    return {
        "name": XDS_CLUSTER,
        "type": kind,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [host]}]},
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _dial(xds_address: str) -> tuple[str, dict[str, Any]]:
    """The cluster's type and Envoy's form of the address: only names need DNS."""
    path = addresses.unix_path(xds_address)
    if path is not None:
        return "STATIC", {"pipe": {"path": path}}
    dialled = dialable(xds_address)
    return "STATIC" if addresses.is_ip(dialled) else "STRICT_DNS", _socket_address(*addresses.split(dialled))


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
