from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.settings_file import dump, load, parse
from kvpilot.cli import DEFAULT_FILE
from kvpilot.mesh.resolve import _spoken_for, listening, resolve

if TYPE_CHECKING:
    from fleet.settings import Settings

RUNTIME = Path("/tmp/kvpilot-test")  # noqa: S108
REDIS = "unix:///tmp/kvpilot-test/redis.sock"


def _settings(**changes: Any) -> Settings:
    real = {"name": "real", "gpu": "L4-24GB", "endpoints": ["10.0.0.1:9000"]}
    own = {"name": "own", "gpu": "L4-24GB", "endpoints": ["127.0.0.1:7001"], "emulated": {}}
    emulated = {"name": "emulated", "gpu": "L4-24GB", "emulated": {"count": 3}}
    version = {"name": "stable", "pools": [real, own, emulated]}
    return parse({"models": [{"name": "m", "versions": [version]}], **changes}, "test")


def _endpoints(settings: Settings) -> dict[str, tuple[str, ...]]:
    return {pool.name: pool.endpoints for _, _, pool in settings.pools()}


def test_emulated_pools_get_as_many_addresses_as_they_count() -> None:
    endpoints = _endpoints(resolve(_settings(), RUNTIME, REDIS))
    assert len(set(endpoints["emulated"])) == 3
    assert all(address.startswith("127.0.0.1:") for address in endpoints["emulated"])


def test_addresses_that_the_user_gave_stay() -> None:
    endpoints = _endpoints(resolve(_settings(), RUNTIME, REDIS))
    assert endpoints["real"] == ("10.0.0.1:9000",)
    assert endpoints["own"] == ("127.0.0.1:7001",)


def test_servers_get_sockets_in_the_runtime_directory() -> None:
    resolved = resolve(_settings(), RUNTIME, REDIS)
    assert resolved.xds_address == f"unix:{RUNTIME}/xds.sock"
    assert resolved.picker_address == f"unix:{RUNTIME}/picker.sock"
    assert resolved.redis_url == REDIS
    assert resolved.envoy.debug_headers


def test_a_server_address_that_the_file_sets_is_kept_even_if_it_is_the_default() -> None:
    settings = _settings(picker_address="127.0.0.1:18001")
    resolved = resolve(settings, RUNTIME, REDIS)
    assert resolved.picker_address == "127.0.0.1:18001"
    assert resolved.xds_address == f"unix:{RUNTIME}/xds.sock"
    assert listening(settings) == {"listen": "127.0.0.1:8080", "picker_address": "127.0.0.1:18001"}


def test_addresses_for_gateways_are_listened_on_too_and_given_to_no_endpoint() -> None:
    pool, health = 20_001, 20_002
    asked = {"pool_addresses": {f"127.0.0.1:{pool}": "m/stable"}, "health_address": f"127.0.0.1:{health}"}
    settings = _settings(endpoint_picker=asked)
    assert listening(settings) == {
        "listen": "127.0.0.1:8080",
        f"endpoint_picker.pool_addresses.127.0.0.1:{pool}": f"127.0.0.1:{pool}",
        "endpoint_picker.health_address": f"127.0.0.1:{health}",
    }
    assert {pool, health} <= _spoken_for(settings)
    on_a_socket = _settings(endpoint_picker={"health_address": "unix:/tmp/kvpilot-test/health.sock"})
    assert listening(on_a_socket) == {"listen": "127.0.0.1:8080"}


def test_the_resolved_default_reads_back_to_the_same(tmp_path: Path) -> None:
    resolved = resolve(load(DEFAULT_FILE), RUNTIME, REDIS)
    file = tmp_path / "kvpilot.yaml"
    file.write_text(dump(resolved))
    assert load(file) == resolved
    assert len(resolved.fleet().endpoints) == 6


def test_emulated_pools_get_grpc_addresses_where_they_ask_for_them(tmp_path: Path) -> None:
    pools: list[dict[str, Any]] = [
        {"name": "asks", "gpu": "L4-24GB", "emulated": {"count": 2, "grpc": True}},
        {
            "name": "says",
            "gpu": "L4-24GB",
            "endpoints": ["127.0.0.1:7001"],
            "grpc_endpoints": ["127.0.0.1:7002"],
            "emulated": {"grpc": True},
        },
        {"name": "does-not", "gpu": "L4-24GB", "emulated": {}},
    ]
    data = {"models": [{"name": "m", "versions": [{"name": "v", "pools": pools}]}]}
    settings = resolve(parse(data, "test"), RUNTIME, REDIS)
    found = {pool.name: pool.grpc_addresses for _, _, pool in settings.pools()}
    assert len(set(found["asks"]) - set(_endpoints(settings)["asks"])) == 2
    assert found["says"] == ("127.0.0.1:7002",)
    assert found["does-not"] == ()
    file = tmp_path / "kvpilot.yaml"
    file.write_text(dump(settings))
    assert load(file) == settings
