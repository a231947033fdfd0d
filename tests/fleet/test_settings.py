from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import BaseModel

from fleet import settings
from fleet.errors import ConfigError
from fleet.settings_file import parse
from tests.support import one_pool_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.settings import PoolSettings

GOOD: dict[str, Any] = {
    "models": [
        {
            "name": "llama",
            "parameters_billion": 8,
            "versions": [
                {
                    "name": "stable",
                    "weight": 90,
                    "pools": [
                        {
                            "name": "h100",
                            "gpu": "H100-80GB",
                            "tensor_parallel": 2,
                            "endpoints": ["10.0.0.1:9000", "[fd00::1]:9000"],
                        }
                    ],
                },
                {
                    "name": "canary",
                    "weight": 10,
                    "pools": [
                        {
                            "name": "l4",
                            "gpu": "L4-24GB",
                            "engine": "trtllm-serve",
                            "endpoints": ["10.0.0.2:8000"],
                        }
                    ],
                },
            ],
        }
    ]
}


def changed(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    node: Any = data
    for part in parents:
        node = node[int(part)] if part.isdigit() else node[part]
    node[int(last) if last.isdigit() else last] = value
    return data


def test_gives_the_fleet_with_clusters_priors_and_metrics_addresses() -> None:
    fleet = parse(GOOD, "kvpilot.yaml").fleet()
    assert {c: [e.address for e in es] for c, es in fleet.clusters.items()} == {
        "llama/stable": ["10.0.0.1:9000", "[fd00::1]:9000"],
        "llama/canary": ["10.0.0.2:8000"],
    }
    assert fleet.endpoints["[fd00::1]:9000"].metrics_url == "http://[fd00::1]:8002/metrics"
    assert fleet.endpoints["10.0.0.2:8000"].metrics_url == "http://10.0.0.2:8000/prometheus/metrics"
    assert fleet.endpoints["10.0.0.1:9000"].prior.prefill > fleet.endpoints["10.0.0.2:8000"].prior.prefill


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(data, "f")
    return str(caught.value)


def first_pool(data: dict[str, Any]) -> PoolSettings:
    return parse(data, "f").models[0].versions[0].pools[0]


def numbers() -> Iterator[tuple[str, Any]]:
    sections = [kind for kind in vars(settings).values() if isinstance(kind, type)]
    for section in sections:
        if issubclass(section, BaseModel):
            for name, field in section.model_fields.items():
                if {int, float} & {field.annotation, *get_args(field.annotation)}:
                    yield f"{section.__name__}.{name}", field


@pytest.mark.parametrize(("name", "field"), list(numbers()))
def test_every_number_has_a_smallest_and_a_largest_value(name: str, field: Any) -> None:
    assert any(hasattr(bound, "ge") for bound in field.metadata), name
    assert any(hasattr(bound, "le") for bound in field.metadata), name


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e-12, "1e-12", 10**9])
@pytest.mark.parametrize(
    "field",
    [
        "picker.session_ttl_seconds",
        "collect.timeout_seconds",
        "envoy.message_timeout_seconds",
        "envoy.stream_idle_timeout_seconds",
    ],
)
def test_times_are_finite_and_from_a_millisecond_to_a_day(field: str, value: object) -> None:
    section, name = field.split(".")
    assert refusal(changed(section, {name: value})).startswith(f"f: {field} is {value!r}: expected ")


def test_a_silent_stream_may_live_for_ever() -> None:
    made = parse(changed("envoy", {"stream_idle_timeout_seconds": 0}), "f")
    assert made.envoy.stream_idle_timeout_seconds == 0


def test_refuses_a_model_that_gets_no_traffic() -> None:
    data = changed("models.0.versions.0.weight", 0)
    data["models"][0]["versions"][1]["weight"] = 0
    assert refusal(data) == "f: models.llama.versions: expected at least one with a weight above 0"


def test_refuses_a_name_that_is_there_twice() -> None:
    data = changed("models.0.versions.1.name", "stable")
    assert refusal(data) == "f: models.llama.versions.stable: expected each name once, found this one 2 times"
    data = copy.deepcopy(GOOD)
    data["models"] *= 2
    assert refusal(data).startswith("f: models.llama: expected each name once")
    data = copy.deepcopy(GOOD)
    data["models"][0]["versions"][0]["pools"] *= 2
    assert refusal(data).startswith("f: models.llama.versions.stable.pools.h100: expected each name once")


FIRST = "models.llama.versions.stable.pools.h100.endpoints.1"
CANARY = "models.llama.versions.canary.pools.l4.endpoints.0"


@pytest.mark.parametrize(
    ("more", "field", "other"),
    [
        ({"xds_address": "127.0.0.1:8080"}, "xds_address", "listen"),
        ({"xds_metrics": "127.0.0.1:18001"}, "xds_metrics", "picker_address"),
        ({"xds_metrics": "10.0.0.9:1", "picker_metrics": "10.0.0.9:1"}, "picker_metrics", "xds_metrics"),
        ({"xds_address": "unix:/a", "picker_address": "unix:/a"}, "picker_address", "xds_address"),
        ({"listen": "10.0.0.2:8000"}, CANARY, "listen"),
        ({"listen": "[fd00:0::1]:9000"}, FIRST, "listen"),
    ],
)
def test_names_both_fields_that_hold_the_same_address(more: dict[str, str], field: str, other: str) -> None:
    text = refusal(GOOD | more)
    assert text.startswith(f"f: {field} is ")
    assert text.endswith(f": expected an address that {other} does not have")


def test_refuses_an_endpoint_in_two_pools() -> None:
    text = refusal(changed("models.0.versions.1.pools.0.endpoints", ["[FD00:0::1]:9000"]))
    assert text == f"f: {CANARY} is '[fd00::1]:9000': expected an address that {FIRST} does not have"


def test_what_envoy_resolves_may_be_a_name_and_what_it_does_not_may_not() -> None:
    names = {"xds_address": "xds.svc:1", "picker_address": "picker.svc:1"}
    assert parse(GOOD | names, "f").picker_address == "picker.svc:1"
    for data in (
        GOOD | {"listen": "localhost:80"},
        changed("models.0.versions.0.pools.0.endpoints", ["a:80"]),
    ):
        assert "expected ip:port, as in 10.0.0.7:8000" in refusal(data)


POOL = "models.0.versions.0.pools.0"
IN_POOL = "f: models.llama.versions.stable.pools.h100"


def test_emulated_engines_are_as_many_as_their_addresses() -> None:
    for given in ({}, {"count": 2}):
        emulated = first_pool(changed(f"{POOL}.emulated", given)).emulated
        assert emulated is not None
        assert emulated.count == 2
    for wrong in (1, 3):
        text = refusal(changed(f"{POOL}.emulated", {"count": wrong}))
        assert text == f"{IN_POOL}.emulated.count is {wrong}: expected 2, as many as `endpoints`"


def test_a_pool_is_served_by_something_and_read_in_its_own_way() -> None:
    assert refusal(changed(f"{POOL}.endpoints", [])).startswith(f"{IN_POOL}.endpoints: expected at least one")
    served: dict[str, Any] = {"name": "h100", "gpu": "H100-80GB", "emulated": {"count": 2}}
    for field, value in (("engine", "trtllm-serve"), ("metrics_port", 8002)):
        assert refusal(changed(POOL, served | {field: value})).startswith(f"{IN_POOL}.{field} is {value!r}: ")


def test_sessions_are_named_by_headers_and_cookies_that_can_be() -> None:
    picker = {"session_headers": ["X-Session-ID", "x_chat"], "session_cookie": ""}
    assert parse(changed("picker", picker), "f").picker.session_headers == ("x-session-id", "x_chat")
    wrong: Any
    for field, wrong in (("session_headers", ["x session"]), ("session_cookie", "a=b")):
        assert refusal(changed("picker", {field: wrong})).startswith(f"f: picker.{field}")


def test_endpoints_run_in_the_zone_of_their_pool() -> None:
    fleet = parse(changed(f"{POOL}.zone", "us-east-1a"), "f").fleet()
    zones = {address: endpoint.zone for address, endpoint in fleet.endpoints.items()}
    assert zones == {"10.0.0.1:9000": "us-east-1a", "[fd00::1]:9000": "us-east-1a", "10.0.0.2:8000": ""}
    assert refusal(changed(f"{POOL}.zone", "a b")) == (
        f"{IN_POOL}.zone is 'a b': expected the name of a zone, as in us-east-1a, or '' for none"
    )


def test_the_picker_reads_a_class_header_and_knows_its_zone_only_if_told() -> None:
    assert (parse(GOOD, "f").picker.class_header, parse(GOOD, "f").picker.zone) == ("", "")
    told = parse(changed("picker", {"class_header": "X-Workload", "zone": "eu-1"}), "f").picker
    assert (told.class_header, told.zone) == ("x-workload", "eu-1")
    for field in ("class_header", "zone"):
        assert refusal(changed("picker", {field: "a b"})).startswith(f"f: picker.{field} is 'a b': expected ")


def test_a_request_is_silent_only_after_four_reports_that_leave_it_out() -> None:
    data = changed("envoy", {"log_interval_seconds": 1.0})
    assert parse(data | {"picker": {"silence_seconds": 4}}, "f").picker.silence_seconds == 4
    text = refusal(data | {"picker": {"silence_seconds": 3.9}})
    assert text == "f: picker.silence_seconds is 3.9: expected at least 4, 4 x envoy.log_interval_seconds"


def test_says_where_a_field_of_a_pool_stands() -> None:
    made = parse(GOOD, "f")
    assert settings.pool_field(*made.pools()[1], "gpu") == "models.llama.versions.canary.pools.l4.gpu"


def test_grpc_is_served_nowhere_unless_a_port_or_addresses_say_where() -> None:
    def addresses(**more: object) -> list[str]:
        data = copy.deepcopy(GOOD)
        data["models"][0]["versions"][0]["pools"][0] |= more
        return [endpoint.grpc_address for endpoint in parse(data, "f").fleet().endpoints.values()]

    assert addresses() == ["", "", ""]
    assert addresses(grpc_port=8001) == ["10.0.0.1:8001", "[fd00::1]:8001", ""]
    own = ["10.0.0.1:8001", "10.0.0.1:8002"]
    assert addresses(grpc_endpoints=own) == [*own, ""]


def test_each_endpoint_has_a_grpc_address_of_its_own_or_none_has_any() -> None:
    def refused(**more: object) -> str:
        data = copy.deepcopy(GOOD)
        data["models"][0]["versions"][0]["pools"][0] |= more
        return refusal(data)

    one, two = "10.0.0.1:8001", "10.0.0.1:8002"
    assert refused(grpc_endpoints=[one]) == (
        f"{IN_POOL}.grpc_endpoints is 1: expected one for each of `endpoints`, which are 2"
    )
    both = refused(grpc_endpoints=[one, two], grpc_port=8001)
    assert both == f"{IN_POOL}.grpc_port is 8001: expected none beside `grpc_endpoints`"
    same_host = refused(endpoints=["10.0.0.1:1", "10.0.0.1:2"], grpc_port=8001)
    assert same_host.startswith(f"{IN_POOL}.grpc_port.1 is '{one}': expected an address that ")
    taken = refused(grpc_endpoints=[one, "10.0.0.2:8000"])
    assert "grpc_endpoints.1" in taken
    assert "10.0.0.2:8000" in taken
    nowhere = refused(endpoints=[], emulated={"count": 2}, grpc_port=8001)
    assert nowhere.startswith(f"{IN_POOL}.grpc_port is 8001: expected `emulated.grpc` where there are no")


def test_a_model_may_have_its_own_admission_in_the_fields_it_sets() -> None:
    data = changed("admission", {"shed": True, "default_priority": 3})
    data["models"][0]["admission"] = {"default_priority": -5}
    own = parse(data, "f").admissions()["llama"]
    assert (own.shed, own.default_priority) == (True, -5)
    assert parse(GOOD, "f").admissions()["llama"] == settings.AdmissionSettings()


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"priority": 0}, "levels.1.priority is 0: expected a number above 0, ascending"),
        ({"priority": 1, "wait_seconds": 1}, "levels.1.wait_seconds is 1.0: expected at least 5"),
        ({"priority": 1, "kv_share": 0.5}, "levels.1.kv_share is 0.5: expected at least 0.9"),
    ],
)
def test_a_higher_level_has_no_lower_limits(second: dict[str, Any], said: str) -> None:
    first = {"priority": 0, "wait_seconds": 5, "kv_share": 0.9}
    levels = [first, {"wait_seconds": 5, "kv_share": 0.9, **second}]
    assert refusal(changed("admission", {"levels": levels})).startswith(f"f: admission.{said}")


def test_refuses_a_tenant_that_is_there_twice() -> None:
    data = changed("tenants", {"known": [{"name": "a"}, {"name": "a"}]})
    assert refusal(data) == "f: tenants.known.a: expected each name once, found this one 2 times"


def test_refuses_a_source_that_there_is_not() -> None:
    data = changed("trust", {"tenant": ["x-tenant"]})
    assert "expected header:NAME, claim:PATH" in refusal(data)


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:4318/v1/traces", "https://collector.example/v1/traces"]
)
def test_spans_go_to_an_http_url_or_nowhere(url: str) -> None:
    assert parse(changed("picker", {"tracing": url}), "f").picker.tracing == url


@pytest.mark.parametrize("url", ["collector:4318", "file:///etc/passwd", "http://", "http://a\nb/"])
def test_spans_go_nowhere_else(url: str) -> None:
    assert "picker.tracing" in refusal(changed("picker", {"tracing": url}))


@pytest.mark.parametrize("field", ["pool_addresses", "pool_authorities"])
def test_a_gateways_pool_is_one_of_the_clusters(field: str) -> None:
    http2 = {"transport": "http2"}
    asked = one_pool_settings(endpoint_picker={field: {"10.0.0.9:9002": "m/v"}}, picker=http2).endpoint_picker
    assert getattr(asked, field) == {"10.0.0.9:9002": "m/v"}
    with pytest.raises(ConfigError, match=r"endpoint_picker\.pool_.*m/other.*one of m/v"):
        one_pool_settings(endpoint_picker={field: {"10.0.0.9:9002": "m/other"}}, picker=http2)


def test_authorities_are_asked_for_only_where_the_transport_shows_them() -> None:
    with pytest.raises(ConfigError, match=r"pool_authorities.*http2"):
        one_pool_settings(endpoint_picker={"pool_authorities": {"pool-a": "m/v"}})


@pytest.mark.parametrize(
    "asked",
    [{"pool_addresses": {"127.0.0.1:18001": "m/v"}}, {"health_address": "127.0.0.1:18001"}],
)
def test_gateways_ask_at_addresses_of_their_own(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="an address that picker_address does not have"):
        one_pool_settings(endpoint_picker=asked)


def test_every_worker_needs_an_address_that_nobody_else_has() -> None:
    workers = {"workers": 3}
    with pytest.raises(ConfigError, match="picker_metrics"):
        one_pool_settings(picker=workers, picker_address="127.0.0.1:18001", picker_metrics="127.0.0.1:18003")
    with pytest.raises(ConfigError, match="room for 3 ports"):
        one_pool_settings(picker=workers, picker_address="127.0.0.1:65534")
    one_pool_settings(picker=workers, picker_address="127.0.0.1:65533")
