"""Envoy's messages as dataclasses (betterproto2): a namespace per package, and the shapes used everywhere.

Slow to parse but pleasant to build, so it serves the control plane only; requests never meet it.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import TYPE_CHECKING

from fleet import address as addresses

with warnings.catch_warnings():
    # The generated modules use a pydantic decorator in a way that pydantic warns of; not ours to mend.
    warnings.simplefilter("ignore")
    from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
    from envoy_data_plane.envoy.config.cluster import v3 as cluster
    from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
    from envoy_data_plane.envoy.config.listener import v3 as listener
    from envoy_data_plane.envoy.config.route import v3 as route
    from envoy_data_plane.envoy.extensions.access_loggers.grpc import v3 as grpc_log
    from envoy_data_plane.envoy.extensions.common.matching import v3 as matching
    from envoy_data_plane.envoy.extensions.content_parsers.json import v3 as json_parser
    from envoy_data_plane.envoy.extensions.filters.common.matcher.action import v3 as filter_action
    from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
    from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata import v3 as json_to_metadata
    from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
    from envoy_data_plane.envoy.extensions.filters.http.sse_to_metadata import v3 as sse_to_metadata
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
    from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import v3 as override_host
    from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin import v3 as round_robin
    from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
    from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams_http
    from envoy_data_plane.envoy.type import v3 as envoy_type
    from envoy_data_plane.envoy.type.matcher import v3 as matcher
    from envoy_data_plane.envoy.type.metadata import v3 as metadata
    from envoy_data_plane.envoy.type.tracing import v3 as tracing
    from envoy_data_plane.google.protobuf import Any
    from envoy_data_plane.xds.core import v3 as xds_core
    from envoy_data_plane.xds.type.matcher import v3 as xds_matcher

if TYPE_CHECKING:
    import betterproto2

__all__ = [
    "Any",
    "accesslog",
    "ads",
    "cluster",
    "core",
    "endpoint",
    "envoy_type",
    "ext_proc",
    "extension",
    "filter_action",
    "grpc_log",
    "grpc_to",
    "hcm",
    "json_parser",
    "json_to_metadata",
    "listener",
    "matcher",
    "matching",
    "metadata",
    "mutation_rules",
    "override_host",
    "previous_hosts",
    "round_robin",
    "route",
    "router",
    "seconds",
    "server_address",
    "socket_address",
    "sse_to_metadata",
    "tracing",
    "upstreams_http",
    "xds_core",
    "xds_matcher",
]


def seconds(value: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=value)


def extension(name: str, config: betterproto2.Message) -> core.TypedExtensionConfig:
    """A named extension and its configuration."""
    return core.TypedExtensionConfig(name=name, typed_config=Any.pack(config))


def ads() -> core.ConfigSource:
    """Where everything comes from: the stream that brought this."""
    return core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)


def grpc_to(cluster_name: str) -> core.GrpcService:
    """A gRPC service behind one of Envoy's clusters."""
    return core.GrpcService(envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=cluster_name))


def socket_address(host_port: str) -> core.Address:
    """A TCP address from `host:port`."""
    host, port = addresses.split(host_port)
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=port))


def server_address(address: str) -> core.Address:
    """An address from `unix:/path` or `host:port`."""
    path = addresses.unix_path(address)
    return socket_address(address) if path is None else core.Address(pipe=core.Pipe(path=path))
