from __future__ import annotations

from fleet.model import Endpoint, Fleet, Hardware, Load, Model, Version, cluster_name, grpc_cluster_name


def version(name: str, *addresses: str, model: str = "m") -> Version:
    return Version(name, 1, tuple(Endpoint(a, model, name, "p", Hardware("H100-80GB")) for a in addresses))


FLEET = Fleet(
    (
        Model("m", (version("stable", "10.0.0.1:80", "10.0.0.2:80"), version("canary", "10.0.0.3:80"))),
        Model("n", (version("stable", "[fd00::1]:80", model="n"),)),
    )
)


def test_every_version_of_every_model_is_a_cluster_of_its_own() -> None:
    members = {name: [e.address for e in cluster] for name, cluster in FLEET.clusters.items()}
    assert members == {
        "m/stable": ["10.0.0.1:80", "10.0.0.2:80"],
        "m/canary": ["10.0.0.3:80"],
        "n/stable": ["[fd00::1]:80"],
    }


def test_an_endpoint_names_the_cluster_that_it_is_in() -> None:
    for name, members in FLEET.clusters.items():
        assert {endpoint.cluster for endpoint in members} == {name}
    assert cluster_name("m", "canary") in FLEET.clusters


def test_endpoints_are_found_by_address() -> None:
    assert list(FLEET.endpoints) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "[fd00::1]:80"]
    assert all(endpoint.address == address for address, endpoint in FLEET.endpoints.items())


def test_a_fleet_of_nothing_is_empty() -> None:
    assert Fleet().endpoints == {}
    assert Fleet().clusters == {}


def test_kv_use_is_a_share_of_all_blocks() -> None:
    load = Load(1.0, kv_blocks_used=30, kv_blocks_max=120, tokens_per_block=32)
    assert load.kv_used == 0.25
    assert load.kv_tokens == 3_840


def test_an_engine_that_tells_no_blocks_counts_as_empty_and_of_unknown_size() -> None:
    load = Load(1.0, kv_blocks_used=30)
    assert load.kv_used == 0.0
    assert load.kv_tokens == 0


def test_hardware_is_told_by_gpu_and_sharding() -> None:
    assert str(Hardware("A100-80GB", 4)) == "A100-80GB-TP4"


def test_a_version_that_serves_grpc_is_a_second_cluster_of_the_same_endpoints() -> None:
    def member(n: int, model: str, grpc_address: str = "") -> Endpoint:
        hardware = Hardware("H100-80GB")
        return Endpoint(f"10.0.0.{n}:80", model, "v", "p", hardware, grpc_address=grpc_address)

    some = (member(1, "m", "10.0.0.1:81"), member(2, "m"))
    fleet = Fleet((Model("m", (Version("v", 1, some),)), Model("n", (Version("v", 1, (member(3, "n"),)),))))
    assert fleet.grpc_clusters == {"m/v/grpc": (some[0],)}
    assert not fleet.grpc_clusters.keys() & fleet.clusters.keys()
    assert grpc_cluster_name("m", "v") in fleet.grpc_clusters
