"""Envoy's configuration for a benchmark: the product's own, with two more names that its route answers to.

See `arms` for what they stand for. Where Envoy is to ask as a gateway does, the route overrides the filter's
modes, and the clusters tell who serves; all the rest stays the product's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fleet.names import LB_NAMESPACE, PICKER_CLUSTER, SERVED_KEY, SUBSET_NAMESPACE
from kvpilot.bench.arms import ECHOED, PLAIN, as_gateway, echo_address
from xds_server.resources import fixed_resources, weighted_resources
from xds_server.resources.clusters import picker_cluster
from xds_server.resources.messages import Any, cluster, ext_proc, grpc_to, metadata, override_host, route
from xds_server.resources.routes import EXT_PROC_FILTER
from xds_server.snapshot import CLUSTER, ROUTE, Resource, Snapshot

if TYPE_CHECKING:
    from fleet.settings import Settings

ECHO_CLUSTER = f"{PICKER_CLUSTER}-echo"


def snapshot(settings: Settings) -> Snapshot:
    """All resources; every endpoint has the same weight."""
    fleet = settings.fleet()
    gateway = as_gateway(settings)
    fixed: list[Resource] = []
    for resource in fixed_resources(settings, fleet):
        if resource.type_url == ROUTE:
            fixed.append(replace(resource, body=_more_names(resource.body, gateway=gateway)))
        elif gateway and resource.type_url == CLUSTER and resource.name in fleet.clusters:
            fixed.append(replace(resource, body=_telling_who_serves(resource.body)))
        else:
            fixed.append(resource)
    weights = dict.fromkeys(fleet.endpoints, 1)
    return Snapshot((*fixed, _echo_cluster(settings), *weighted_resources(fleet, weights)))


def _more_names(body: bytes, *, gateway: bool) -> bytes:
    routes = route.RouteConfiguration().parse(body)
    (steered,) = routes.virtual_hosts
    asks = _as_gateway() if gateway else ext_proc.ExtProcOverrides()
    asks_the_echo = replace(asks, grpc_service=grpc_to(ECHO_CLUSTER))
    for name, filter_config in (
        (PLAIN, ext_proc.ExtProcPerRoute(disabled=True)),
        (ECHOED, ext_proc.ExtProcPerRoute(overrides=asks_the_echo)),
    ):
        routes.virtual_hosts.append(
            replace(
                steered,
                name=name,
                domains=[name],
                typed_per_filter_config={EXT_PROC_FILTER: Any.pack(filter_config)},
            )
        )
    if gateway:
        filter_config = ext_proc.ExtProcPerRoute(overrides=asks)
        steered.typed_per_filter_config[EXT_PROC_FILTER] = Any.pack(filter_config)
    return bytes(routes)


def _as_gateway() -> ext_proc.ExtProcOverrides:
    """Everything is sent, both ways. No pick id is taken, so there is no access log for the picker."""
    send, body = ext_proc.ProcessingModeHeaderSendMode, ext_proc.ProcessingModeBodySendMode
    namespaces = ext_proc.MetadataOptionsMetadataNamespaces
    return ext_proc.ExtProcOverrides(
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=send.SEND,
            request_body_mode=body.FULL_DUPLEX_STREAMED,
            request_trailer_mode=send.SEND,
            response_header_mode=send.SEND,
            response_body_mode=body.FULL_DUPLEX_STREAMED,
            response_trailer_mode=send.SEND,
        ),
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=namespaces(untyped=[LB_NAMESPACE, SUBSET_NAMESPACE]),
            receiving_namespaces=namespaces(untyped=[LB_NAMESPACE]),
        ),
    )


def _telling_who_serves(body: bytes) -> bytes:
    """A version's cluster that notes who serves where gateways' clusters do."""
    message = cluster.Cluster().parse(body)
    assert message.load_balancing_policy is not None  # noqa: S101 - ours, made a moment ago
    (policy,) = message.load_balancing_policy.policies
    assert policy.typed_extension_config is not None  # noqa: S101
    assert policy.typed_extension_config.typed_config is not None  # noqa: S101
    override = override_host.OverrideHost().parse(policy.typed_extension_config.typed_config.value)
    override.selected_host_key = metadata.MetadataKey(
        key=LB_NAMESPACE, path=[metadata.MetadataKeyPathSegment(key=SERVED_KEY)]
    )
    policy.typed_extension_config.typed_config = Any.pack(override)
    return bytes(message)


def _echo_cluster(settings: Settings) -> Resource:
    like = picker_cluster(settings.model_copy(update={"picker_address": echo_address(settings)}))
    message = cluster.Cluster().parse(like.body)
    message.name = ECHO_CLUSTER
    if message.load_assignment is not None:
        message.load_assignment.cluster_name = ECHO_CLUSTER
    return replace(like, name=ECHO_CLUSTER, body=bytes(message))
