from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from fleet.errors import StartError
from fleet.process import main, metrics_page

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from fleet.settings import Settings

FILE = """
models:
  - {name: m, versions: [{name: v, pools: [{name: p, gpu: L4-24GB, endpoints: ["10.0.0.1:80"]}]}]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kvpilot.yaml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_with_the_settings_until_a_signal_and_exits_with_0(
    config: Path, number: signal.Signals
) -> None:
    served = []

    async def serve(settings: Settings, source: str, stop: asyncio.Event) -> None:
        served.append((settings.models[0].name, source))
        os.kill(os.getpid(), number)
        await stop.wait()

    assert main("test", "", serve, ["-c", str(config)]) == 0
    assert served == [("m", str(config))]


def test_what_the_user_can_mend_is_one_line_and_exit_status_2(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(_settings: Settings, _source: str, _stop: asyncio.Event) -> None:
        raise StartError("the port is taken")

    assert main("test", "", serve, ["-c", str(config)]) == 2
    assert capsys.readouterr().err == "test: the port is taken\n"
    assert main("test", "", serve, ["-c", f"{config}.absent"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


async def test_shows_metrics_while_it_serves_and_frees_the_port_afterwards() -> None:
    registry = CollectorRegistry()
    Counter("kvpilot_test", "A counter", registry=registry).inc(3)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    for _ in range(2):
        async with (
            metrics_page(registry, "picker_metrics", address),
            aiohttp.ClientSession() as client,
            client.get(f"http://{address}/metrics") as response,
        ):
            assert "kvpilot_test_total 3.0" in await response.text()


async def test_a_metrics_port_that_is_taken_is_named_with_its_field() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"picker_metrics {address}: cannot listen"):
            async with metrics_page(CollectorRegistry(), "picker_metrics", address):
                pass
