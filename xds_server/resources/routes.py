"""RDS: which version a request goes to. Who then chooses its endpoint is switched here, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.model import cluster_name
from fleet.names import ENDPOINT_FAILURE_CODES, ENDPOINT_HEADER, VERSION_HEADER
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
    from fleet.model import Fleet, Model, Version
    from fleet.settings import Settings

ROUTE_CONFIGURATION = "kvpilot"
MODEL_HEADER = "x-model"
"""The request header that names a model; without it the first model of the settings answers."""

EXT_PROC_FILTER = "envoy.filters.http.ext_proc"

RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF_SECONDS = 0.005, 0.05  # the next try goes elsewhere: nothing to wait for
_RESELECTIONS = 5  # draws of the fallback balancer that may hit an endpoint already tried


def route_configuration(settings: Settings, fleet: Fleet) -> Resource:
    """All models' routes, for any host."""
    named = [_route(model, settings, [_names(model)]) for model in fleet.models]
    default = _route(fleet.models[0], settings, [])
    message = route.RouteConfiguration(
        name=ROUTE_CONFIGURATION,
        virtual_hosts=[
            route.VirtualHost(
                name="all",
                domains=["*"],
                routes=[*named, default],
                response_headers_to_add=_who_answered() if settings.envoy.debug_headers else [],
                typed_per_filter_config={} if settings.steering == "steered" else {EXT_PROC_FILTER: _off()},
            )
        ],
    )
    clusters = {cluster_name(m.name, v.name) for m in fleet.models for v in _serving(m)}
    return Resource(ROUTE, message.name, bytes(message), frozenset((CLUSTER, name) for name in clusters))


def _names(model: Model) -> route.HeaderMatcher:
    return route.HeaderMatcher(name=MODEL_HEADER, string_match=matcher.StringMatcher(exact=model.name))


def _route(model: Model, settings: Settings, headers: list[route.HeaderMatcher]) -> route.Route:
    return route.Route(
        name=model.name,
        match=route.RouteMatch(prefix="/", headers=headers),
        route=_to_versions(model, settings),
    )


def _to_versions(model: Model, settings: Settings) -> route.RouteAction:
    """Shares of requests by version weight; a session always falls on the same side."""
    serving = _serving(model)
    alone = cluster_name(model.name, serving[0].name) if len(serving) == 1 else None
    return route.RouteAction(
        cluster=alone,
        weighted_clusters=None if alone else _weighted(model, serving),
        hash_policy=_session_hashes(settings),
        timeout=seconds(0),  # streams last as long as they last; stream_idle_timeout ends dead ones
        retry_policy=_retries(settings),
    )


def _serving(model: Model) -> list[Version]:
    return [version for version in model.versions if version.weight]


def _weighted(model: Model, versions: list[Version]) -> route.WeightedCluster:
    return route.WeightedCluster(
        clusters=[
            route.WeightedClusterClusterWeight(name=cluster_name(model.name, v.name), weight=v.weight)
            for v in versions
        ],
        use_hash_policy=True,
    )


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


def _retries(settings: Settings) -> route.RetryPolicy:
    """Before an answer has begun. No per-try timeout: answers that are not streamed send headers last."""
    return route.RetryPolicy(
        retry_on=RETRY_ON,
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
