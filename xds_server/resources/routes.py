"""RDS: which version a request goes to. Who then chooses its endpoint is switched here, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.model import cluster_name, grpc_cluster_name
from fleet.names import (
    ENDPOINT_FAILURE_CODES,
    ENDPOINT_HEADER,
    KSERVE_SERVICE,
    KSERVE_STREAM,
    VERSION_HEADER,
)
from xds_server.resources.messages import (
    Any,
    core,
    ext_proc,
    matcher,
    previous_hosts,
    route,
    seconds,
)
from xds_server.snapshot import CLUSTER, ROUTE, Resource

if TYPE_CHECKING:
    from datetime import timedelta

    from fleet.model import Fleet, Model
    from fleet.settings import Settings

ROUTE_CONFIGURATION = "kvpilot"

EXT_PROC_FILTER = "envoy.filters.http.ext_proc"

RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
GRPC_RETRY_ON = f"{RETRY_ON},unavailable,resource-exhausted"
"""The same, and the two gRPC statuses by which an endpoint says that another one should be asked."""
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF_SECONDS = 0.005, 0.05  # the next try goes elsewhere: nothing to wait for
_RESELECTIONS = 5  # draws of the fallback balancer that may hit an endpoint already tried


def route_configuration(settings: Settings, fleet: Fleet) -> Resource:
    """All models' routes, for any host."""
    shares = {model.name: (_shares(model), _grpc_shares(model)) for model in fleet.models}
    named = [(model.name, [_names(model, settings)]) for model in fleet.models]
    default: tuple[str, list[route.HeaderMatcher]] = (fleet.models[0].name, [])
    routes = [
        made
        for name, headers in (*named, default)
        for made in _routes(name, *shares[name], settings, headers)
    ]
    message = route.RouteConfiguration(
        name=ROUTE_CONFIGURATION,
        virtual_hosts=[
            route.VirtualHost(
                name="all",
                domains=["*"],
                routes=routes,
                response_headers_to_add=_who_answered() if settings.envoy.debug_headers else [],
                typed_per_filter_config={} if settings.steering == "steered" else {EXT_PROC_FILTER: _off()},
            )
        ],
    )
    clusters = {name for both in shares.values() for share in both for name in share}
    return Resource(ROUTE, message.name, bytes(message), frozenset((CLUSTER, name) for name in clusters))


def _names(model: Model, settings: Settings) -> route.HeaderMatcher:
    header = settings.picker.model_header
    return route.HeaderMatcher(name=header, string_match=matcher.StringMatcher(exact=model.name))


def _routes(
    name: str,
    shares: dict[str, int],
    grpc_shares: dict[str, int],
    settings: Settings,
    headers: list[route.HeaderMatcher],
) -> list[route.Route]:
    """One model's routes, the narrowest first. Where it has no gRPC, its engines say so over HTTP."""
    every = route.RouteMatch(prefix="/", headers=headers)
    plain = route.Route(name=name, match=every, route=_to_versions(shares, settings, RETRY_ON))
    if not grpc_shares:
        return [plain]
    grpc = route.RouteMatchGrpcRouteMatchOptions()
    stream = route.Route(
        name=f"{name}/grpc-stream",
        match=route.RouteMatch(path=KSERVE_STREAM, grpc=grpc, headers=headers),
        route=_to_versions(
            grpc_shares, settings, GRPC_RETRY_ON, seconds(settings.envoy.grpc_stream_idle_timeout_seconds)
        ),
        typed_per_filter_config={EXT_PROC_FILTER: _headers_only()} if settings.steering == "steered" else {},
    )
    call = route.Route(
        name=f"{name}/grpc",
        match=route.RouteMatch(prefix=f"/{KSERVE_SERVICE}/", grpc=grpc, headers=headers),
        route=_to_versions(grpc_shares, settings, GRPC_RETRY_ON),
    )
    return [stream, call, plain]


def _shares(model: Model) -> dict[str, int]:
    """Weights of the versions that get requests, by cluster."""
    return {cluster_name(model.name, v.name): v.weight for v in model.versions if v.weight}


def _grpc_shares(model: Model) -> dict[str, int]:
    """The same of those versions that serve gRPC: where one does not, the others share its part."""
    return {
        grpc_cluster_name(model.name, v.name): v.weight
        for v in model.versions
        if v.weight and any(e.grpc_address for e in v.endpoints)
    }


def _to_versions(
    shares: dict[str, int], settings: Settings, retry_on: str, idle: timedelta | None = None
) -> route.RouteAction:
    """Shares of requests by version weight; a session always falls on the same side."""
    alone = next(iter(shares)) if len(shares) == 1 else None
    return route.RouteAction(
        cluster=alone,
        weighted_clusters=None if alone else _weighted(shares),
        hash_policy=_session_hashes(settings),
        timeout=seconds(0),  # streams last as long as they last; stream_idle_timeout ends dead ones
        idle_timeout=idle,
        retry_policy=_retries(settings, retry_on),
    )


def _weighted(shares: dict[str, int]) -> route.WeightedCluster:
    weights = [route.WeightedClusterClusterWeight(name=name, weight=w) for name, w in shares.items()]
    return route.WeightedCluster(clusters=weights, use_hash_policy=True)


def _session_hashes(settings: Settings) -> list[route.RouteActionHashPolicy]:
    """Where a session is named, in the picker's order; one only named in the body is unknown here."""
    header = route.RouteActionHashPolicyHeader
    policies = [
        route.RouteActionHashPolicy(header=header(header_name=name), terminal=True)
        for name in settings.picker.session_headers
    ]
    if settings.picker.session_cookie:
        cookie = route.RouteActionHashPolicyCookie(name=settings.picker.session_cookie)
        policies.append(route.RouteActionHashPolicy(cookie=cookie, terminal=True))
    return policies


def _retries(settings: Settings, retry_on: str) -> route.RetryPolicy:
    """Before an answer has begun. No per-try timeout: answers that are not streamed send headers last."""
    return route.RetryPolicy(
        retry_on=retry_on,
        retriable_status_codes=list(ENDPOINT_FAILURE_CODES),
        num_retries=settings.envoy.retries,
        retry_host_predicate=[
            route.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=Any.pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=_RESELECTIONS,
        retry_back_off=route.RetryPolicyRetryBackOff(
            base_interval=seconds(_BACK_OFF_SECONDS), max_interval=seconds(_LONGEST_BACK_OFF_SECONDS)
        ),
    )


def _who_answered() -> list[core.HeaderValueOption]:
    return [
        _response_header(ENDPOINT_HEADER, "%UPSTREAM_REMOTE_ADDRESS%"),
        _response_header(VERSION_HEADER, "%UPSTREAM_CLUSTER_RAW%"),
    ]


def _response_header(key: str, value: str) -> core.HeaderValueOption:
    return core.HeaderValueOption(
        header=core.HeaderValue(key=key, value=value),
        append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _off() -> Any:
    return Any.pack(ext_proc.ExtProcPerRoute(disabled=True))


def _headers_only() -> Any:
    """A stream that the client never ends would wait for its body's end for ever: the headers must do."""
    send, body = ext_proc.ProcessingModeHeaderSendMode, ext_proc.ProcessingModeBodySendMode
    mode = ext_proc.ProcessingMode(
        request_header_mode=send.SEND,
        request_body_mode=body.NONE,
        request_trailer_mode=send.SKIP,
        response_header_mode=send.SKIP,
        response_body_mode=body.NONE,
        response_trailer_mode=send.SKIP,
    )
    return Any.pack(ext_proc.ExtProcPerRoute(overrides=ext_proc.ExtProcOverrides(processing_mode=mode)))
