"""LDS: the one listener, its filters, and the access log that brings news back to the picker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.names import (
    ACCESS_LOG,
    CLUSTER_ATTRIBUTE,
    FIRST_BODY_FORMAT,
    FIRST_BODY_TAG,
    GRPC_STATUS_FORMAT,
    GRPC_STATUS_TAG,
    HOLD_SLACK_SECONDS,
    LB_NAMESPACE,
    LOG_FLUSH_SECONDS,
    PICK_ID_KEY,
    PICK_NAMESPACE,
    PICKER_CLUSTER,
    REFUSAL_HEADERS,
    SAN_ATTRIBUTE,
)
from xds_server.resources.clusters import LOG_CLUSTER
from xds_server.resources.messages import (
    Any,
    accesslog,
    ads,
    core,
    ext_proc,
    grpc_log,
    grpc_to,
    hcm,
    listener,
    matcher,
    mutation_rules,
    router,
    seconds,
    socket_address,
    tracing,
)
from xds_server.resources.routes import EXT_PROC_FILTER, ROUTE_CONFIGURATION
from xds_server.resources.usage import streamed_usage, whole_usage
from xds_server.snapshot import CLUSTER, LISTENER, ROUTE, Resource

if TYPE_CHECKING:
    import betterproto2

    from fleet.settings import Settings

LISTENER_NAME = "kvpilot"


def http_listener(settings: Settings) -> Resource:
    """The listener on `settings.listen`, HTTP/1.1 and HTTP/2 without TLS; routes come over RDS."""
    manager = _connection_manager(settings)
    message = listener.Listener(
        name=LISTENER_NAME,
        address=socket_address(settings.listen),
        per_connection_buffer_limit_bytes=settings.envoy.buffer_bytes,
        filter_chains=[
            listener.FilterChain(
                filters=[
                    listener.Filter(
                        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager)
                    )
                ]
            )
        ],
    )
    needs = {(ROUTE, ROUTE_CONFIGURATION), (CLUSTER, PICKER_CLUSTER), (CLUSTER, LOG_CLUSTER)}
    return Resource(LISTENER, LISTENER_NAME, bytes(message), frozenset(needs))


def _connection_manager(settings: Settings) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix="kvpilot",
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        rds=hcm.Rds(config_source=ads(), route_config_name=ROUTE_CONFIGURATION),
        use_remote_address=True,  # at the edge: Envoy's own control headers from outside are not obeyed
        stream_idle_timeout=seconds(settings.envoy.stream_idle_timeout_seconds),
        http_filters=[
            _filter(EXT_PROC_FILTER, _picker(settings)),
            _filter("envoy.filters.http.sse_to_metadata", streamed_usage()),
            _filter("envoy.filters.http.json_to_metadata", whole_usage()),
            _filter("envoy.filters.http.router", router.Router()),
        ],
        access_log=[_picked_requests_log()],
        access_log_options=hcm.HttpConnectionManagerHcmAccessLogOptions(
            access_log_flush_interval=seconds(settings.envoy.log_interval_seconds)
        ),
    )


def _filter(name: str, config: betterproto2.Message) -> hcm.HttpFilter:
    return hcm.HttpFilter(name=name, typed_config=Any.pack(config))


def _picker(settings: Settings) -> ext_proc.ExternalProcessor:
    """Ask the picker for every request, and do without where it does not answer in time."""
    send = ext_proc.ProcessingModeHeaderSendMode
    body = ext_proc.ProcessingModeBodySendMode
    namespaces = ext_proc.MetadataOptionsMetadataNamespaces
    trust = settings.trust
    forwarded = namespaces(untyped=[trust.claims_namespace]) if trust.reads_claims else None
    return ext_proc.ExternalProcessor(
        grpc_service=grpc_to(PICKER_CLUSTER),
        failure_mode_allow=True,
        message_timeout=seconds(settings.envoy.message_timeout_seconds),
        max_message_timeout=seconds(settings.picker.hold_seconds + HOLD_SLACK_SECONDS),
        request_attributes=[CLUSTER_ATTRIBUTE, *([SAN_ATTRIBUTE] if trust.reads_certificate else [])],
        allow_mode_override=True,  # what is decided from the headers needs no body
        route_cache_action=ext_proc.ExternalProcessorRouteCacheAction.RETAIN,
        # Nothing of a request: what is allowed is there only in answers that refuse one.
        mutation_rules=mutation_rules.HeaderMutationRules(
            disallow_all=True, allow_expression=matcher.RegexMatcher(regex=REFUSAL_HEADERS)
        ),
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=forwarded,
            receiving_namespaces=namespaces(untyped=[LB_NAMESPACE, PICK_NAMESPACE]),
        ),
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=send.SEND,  # without it the request would leave before the body's answer
            request_body_mode=body.BUFFERED_PARTIAL,
            request_trailer_mode=send.SKIP,
            response_header_mode=send.SKIP,
            response_body_mode=body.NONE,
            response_trailer_mode=send.SKIP,
        ),
    )


def _picked_requests_log() -> accesslog.AccessLog:
    """A log entry to the picker for each request that carries one of its pick ids, and for no other."""
    picked = matcher.MetadataMatcher(
        filter=PICK_NAMESPACE,
        path=[matcher.MetadataMatcherPathSegment(key=PICK_ID_KEY)],
        value=matcher.ValueMatcher(present_match=True),
    )
    return accesslog.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=accesslog.AccessLogFilter(
            metadata_filter=accesslog.MetadataFilter(matcher=picked, match_if_key_not_found=False)
        ),
        typed_config=Any.pack(
            grpc_log.HttpGrpcAccessLogConfig(
                common_config=grpc_log.CommonGrpcAccessLogConfig(
                    log_name=ACCESS_LOG,
                    grpc_service=grpc_to(LOG_CLUSTER),
                    transport_api_version=core.ApiVersion.V3,
                    buffer_flush_interval=seconds(LOG_FLUSH_SECONDS),
                    custom_tags=[
                        tracing.CustomTag(tag=FIRST_BODY_TAG, value=FIRST_BODY_FORMAT),
                        tracing.CustomTag(tag=GRPC_STATUS_TAG, value=GRPC_STATUS_FORMAT),
                    ],
                )
            )
        ),
    )
