from __future__ import annotations

import copy
from typing import Any

from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2, processing_mode_pb2

from fleet.settings_file import parse
from xds_server.resources.routes import route_configuration
from xds_server.snapshot import CLUSTER

Mode = processing_mode_pb2.ProcessingMode


def version(name: str, weight: int, port: int) -> dict[str, Any]:
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": [f"10.0.0.1:{port}"]}
    return {"name": name, "weight": weight, "pools": [pool]}


MODELS = [
    {"name": "m", "versions": [version("a", 90, 1), version("b", 10, 2), version("off", 0, 3)]},
    {"name": "n", "versions": [version("only", 5, 4)]},
]


def virtual_host(**more: Any) -> Any:
    settings = parse({"models": MODELS} | more, "test")
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


def with_grpc(*names: str) -> list[dict[str, Any]]:
    """The models, where these versions serve gRPC."""
    models: Any = copy.deepcopy(MODELS)
    for model in models:
        for each in model["versions"]:
            if f"{model['name']}/{each['name']}" in names:
                each["pools"][0]["grpc_port"] = 8000 + int(each["pools"][0]["endpoints"][0][-1])
    return list(models)


def test_grpc_goes_to_the_clusters_of_its_own_with_the_same_shares_before_all_else() -> None:
    routes = virtual_host(models=with_grpc("m/a", "m/b", "m/off")).routes
    assert [r.name for r in routes] == ["m/grpc-stream", "m/grpc", "m", "n", "m/grpc-stream", "m/grpc", "m"]
    stream, call, plain = routes[:3]
    assert stream.match.path == "/inference.GRPCInferenceService/ModelStreamInfer"
    assert call.match.prefix == "/inference.GRPCInferenceService/"
    for found in (stream, call):
        assert found.match.HasField("grpc")  # only what says application/grpc
        shares = {c.name: c.weight.value for c in found.route.weighted_clusters.clusters}
        assert shares == {"m/a/grpc": 90, "m/b/grpc": 10}
        assert found.route.hash_policy == plain.route.hash_policy
        assert [h.string_match.exact for h in found.match.headers] == ["m"]
    assert all(not found.match.headers for found in routes[4:])


def test_versions_without_grpc_leave_their_share_of_it_to_the_others() -> None:
    routes = virtual_host(models=with_grpc("m/b")).routes
    assert routes[0].route.cluster == routes[1].route.cluster == "m/b/grpc"
    assert len(routes[2].route.weighted_clusters.clusters) == 2


def test_grpc_is_retried_by_its_own_statuses_too_and_has_no_deadline() -> None:
    action = virtual_host(models=with_grpc("m/a")).routes[1].route
    plain = virtual_host().routes[0].route
    own = set(action.retry_policy.retry_on.split(",")) - set(plain.retry_policy.retry_on.split(","))
    assert own == {"unavailable", "resource-exhausted"}
    assert action.HasField("timeout")
    assert action.timeout.ToTimedelta().total_seconds() == 0
    assert not action.HasField("idle_timeout")  # the listener's holds


def test_a_stream_may_be_silent_for_longer_and_is_decided_from_its_headers() -> None:
    models = with_grpc("m/a")
    stream, call, *_ = virtual_host(models=models, envoy={"grpc_stream_idle_timeout_seconds": 9}).routes
    assert stream.route.idle_timeout.ToTimedelta().total_seconds() == 9
    assert not call.typed_per_filter_config
    override = ext_proc_pb2.ExtProcPerRoute()
    assert stream.typed_per_filter_config["envoy.filters.http.ext_proc"].Unpack(override)
    mode = override.overrides.processing_mode
    assert (mode.request_header_mode, mode.request_body_mode) == (Mode.SEND, Mode.NONE)
    assert (mode.response_header_mode, mode.response_body_mode) == (Mode.SKIP, Mode.NONE)
    unsteered = virtual_host(models=models, steering="weighted").routes[0]
    assert not unsteered.typed_per_filter_config  # it would ask the picker after all


def test_needs_the_grpc_clusters_that_it_routes_to() -> None:
    settings = parse({"models": with_grpc("m/a", "n/only", "m/off")}, "test")
    needs = route_configuration(settings, settings.fleet()).needs
    assert {name for _, name in needs} == {"m/a", "m/b", "n/only", "m/a/grpc", "n/only/grpc"}


def test_the_header_that_names_a_model_is_a_setting() -> None:
    host = virtual_host(picker={"model_header": "X-Wanted"})
    assert [r.match.headers[0].name for r in host.routes[:2]] == ["x-wanted", "x-wanted"]
