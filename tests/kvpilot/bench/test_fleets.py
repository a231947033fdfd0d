from __future__ import annotations

from typing import TYPE_CHECKING

from fleet import settings_file
from kvpilot.bench.arms import as_gateway
from kvpilot.bench.cases import MODES, Site
from kvpilot.bench.fleets import loopback, settings_data

if TYPE_CHECKING:
    from pathlib import Path


def test_gives_every_endpoint_an_address_of_the_loopback_network() -> None:
    addresses = {loopback(n) for n in range(10_000)}
    assert len(addresses) == 10_000
    for address in addresses:
        parts = [int(part) for part in address.split(".")]
        assert parts[:2] == [127, 0]
        assert all(0 < part < 255 for part in parts[2:])


def test_makes_settings_that_servers_take(tmp_path: Path) -> None:
    for mode in MODES:
        data = settings_data(Site(1000, mode, "http2"), tmp_path)
        settings = settings_file.parse(data, "bench")
        assert len(settings.fleet().endpoints) == 1000
        assert settings.picker.transport == "http2"
        assert settings.picker.session_fast_path == (mode == "session")
        assert as_gateway(settings) == (mode == "duplex")
