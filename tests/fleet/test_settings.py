from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fleet import settings
from fleet.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

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
    fleet = settings.parse(GOOD, "kvpilot.yaml").fleet()
    assert {c: [e.address for e in es] for c, es in fleet.clusters.items()} == {
        "llama/stable": ["10.0.0.1:9000", "[fd00::1]:9000"],
        "llama/canary": ["10.0.0.2:8000"],
    }
    assert fleet.endpoints["[fd00::1]:9000"].metrics_url == "http://[fd00::1]:8002/metrics"
    assert fleet.endpoints["10.0.0.2:8000"].metrics_url == "http://10.0.0.2:8000/prometheus/metrics"
    assert fleet.endpoints["10.0.0.1:9000"].prior.prefill > fleet.endpoints["10.0.0.2:8000"].prior.prefill


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"),
    [
        ("models.0.versions.0.pools.0.gpu", "H100", "models.0.versions.0.pools.0.gpu", "H100-80GB"),
        (
            "models.0.versions.0.pools.0.endpoints",
            ["10.0.0.1"],
            "models.0.versions.0.pools.0.endpoints.0",
            "host:port",
        ),
        ("models.0.versions.0.weight", -1, "models.0.versions.0.weight", "greater than or equal to 0"),
        ("listen", "127.0.0.1:0", "listen", "1 to 65535"),
        ("xds_address", "unix:xds", "xds_address", "or unix:/path"),
        ("colour", "blue", "colour", "not permitted"),
        ("models", [], "models", "at least 1"),
        ("steering", "magic", "steering", "steered"),
    ],
)
def test_names_file_field_value_and_what_would_be_right(
    path: str, value: object, field: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.parse(changed(path, value), "kvpilot.yaml")
    text = str(caught.value)
    assert text.startswith(f"kvpilot.yaml: {field}")
    assert expected in text
    assert "\n" not in text


def test_refuses_an_address_in_two_pools() -> None:
    with pytest.raises(ConfigError, match=r"endpoint address once, found '10.0.0.1:9000'"):
        settings.parse(changed("models.0.versions.1.pools.0.endpoints", ["10.0.0.1:9000"]), "f")


def test_refuses_a_model_that_gets_no_traffic() -> None:
    data = changed("models.0.versions.0.weight", 0)
    data["models"][0]["versions"][1]["weight"] = 0
    with pytest.raises(ConfigError, match="weight above 0"):
        settings.parse(data, "f")


@pytest.mark.parametrize("text", ["- a\n", "", "a: [1", "\x00"])
def test_refuses_a_file_that_is_no_mapping_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kvpilot.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        settings.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(tmp_path / "absent.yaml")


def test_reads_back_what_it_dumps() -> None:
    first = settings.parse(GOOD, "f")
    assert settings.parse(yaml.safe_load(settings.dump(first)), "f") == first
