from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_pb2

from fleet.settings_file import parse
from xds_server.resources.routes import route_configuration
from xds_server.snapshot import CLUSTER


def version(name: str, weight: int, port: int) -> dict[str, Any]:
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": [f"10.0.0.1:{port}"]}
    return {"name": name, "weight": weight, "pools": [pool]}


MODELS = [
    {"name": "m", "versions": [version("a", 90, 1), version("b", 10, 2), version("off", 0, 3)]},
    {"name": "n", "versions": [version("only", 5, 4)]},
]


def virtual_host(**more: Any) -> Any:
    settings = parse({"models": MODELS, **more}, "test")
    body = route_configuration(settings, settings.fleet()).body
    return route_pb2.RouteConfiguration.FromString(body).virtual_hosts[0]


def test_a_header_names_the_model_and_the_first_one_is_the_default() -> None:
    routes = virtual_host().routes
    named = [(r.match.headers[0].name, r.match.headers[0].string_match.exact) for r in routes[:2]]
    assert named == [("x-model", "m"), ("x-model", "n")]
    assert not routes[2].match.headers
    assert routes[2].route == routes[0].route


def test_versions_share_by_weight_and_those_without_any_are_left_out() -> None:
    weighted = virtual_host().routes[0].route.weighted_clusters
    assert {c.name: c.weight.value for c in weighted.clusters} == {"m/a": 90, "m/b": 10}
    assert weighted.use_hash_policy.value


def test_a_single_version_is_a_plain_cluster() -> None:
    assert virtual_host().routes[1].route.cluster == "n/only"


def test_sessions_are_hashed_by_the_configured_headers_in_order_then_by_the_cookie() -> None:
    host = virtual_host(picker={"session_headers": ["x-chat", "x-user"], "session_cookie": "chat"})
    *headers, cookie = host.routes[0].route.hash_policy
    assert [p.header.header_name for p in headers] == ["x-chat", "x-user"]
    assert (cookie.cookie.name, cookie.cookie.HasField("ttl")) == ("chat", False)  # Envoy sets none itself
    assert all(p.terminal for p in (*headers, cookie))


def test_no_cookie_names_a_session_where_none_is_configured() -> None:
    host = virtual_host(picker={"session_headers": ["x-chat"], "session_cookie": ""})
    assert len(host.routes[0].route.hash_policy) == 1


def test_streams_have_no_deadline_and_tries_no_timeout() -> None:
    action = virtual_host(envoy={"retries": 4}).routes[0].route
    assert action.HasField("timeout")
    assert action.timeout.ToTimedelta().total_seconds() == 0
    assert not action.retry_policy.HasField("per_try_timeout")
    assert action.retry_policy.num_retries.value == 4
    assert list(action.retry_policy.retriable_status_codes) == [502, 503, 504]


def test_the_picker_is_asked_only_when_steering() -> None:
    assert not virtual_host().typed_per_filter_config
    for steering in ("weighted", "round_robin"):
        switched = virtual_host(steering=steering).typed_per_filter_config
        assert list(switched) == ["envoy.filters.http.ext_proc"]


def test_clients_are_told_who_answered_only_when_asked_for() -> None:
    assert not virtual_host().response_headers_to_add
    told = virtual_host(envoy={"debug_headers": True}).response_headers_to_add
    assert [h.header.key for h in told] == ["x-kvpilot-endpoint", "x-kvpilot-version"]


def test_needs_every_cluster_that_it_routes_to() -> None:
    settings = parse({"models": MODELS}, "test")
    needs = route_configuration(settings, settings.fleet()).needs
    assert needs == {(CLUSTER, "m/a"), (CLUSTER, "m/b"), (CLUSTER, "n/only")}
