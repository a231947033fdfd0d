from __future__ import annotations

from typing import Any

import pytest

from fleet.errors import ConfigError
from fleet.settings import Settings, parse
from xds_server.collect.discovery import discover


def settings(**more: Any) -> Settings:
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": more.pop("endpoints", ["10.0.0.1:8000"])}
    versions = [{"name": "stable", "pools": [pool]}]
    return parse({"models": [{"name": "m", "versions": versions}], **more}, "test")


def test_finds_what_the_settings_name() -> None:
    assert list(discover(settings(endpoints=["10.0.0.1:8000", "[fd00::1]:8000"]), "f").endpoints) == [
        "10.0.0.1:8000",
        "[fd00::1]:8000",
    ]


def test_a_name_instead_of_an_address_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"k\.yaml: endpoints of m/stable, pool p is 'pod-1:8000'.*IP"):
        discover(settings(endpoints=["pod-1:8000"]), "k.yaml")
    with pytest.raises(ConfigError, match=r"k\.yaml: listen is 'localhost:8080'"):
        discover(settings(listen="localhost:8080"), "k.yaml")
