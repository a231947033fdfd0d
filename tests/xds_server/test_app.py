from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import aiohttp

from fleet.process import main
from fleet.settings_file import dump
from tests.support import free_address, one_pool_settings, until
from xds_server.app import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def config(folder: Path, **more: str) -> Path:
    own = {"redis_url": "redis://127.0.0.1:9/0", "xds_address": f"unix:{folder}/xds.sock"}
    path = folder / "kvpilot.yaml"
    path.write_text(dump(one_pool_settings("127.0.0.1:9", **own | more)))
    return path


async def started(path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "xds_server", "-c", str(path), stderr=asyncio.subprocess.PIPE
    )


async def text_of(url: str) -> str:
    try:
        async with aiohttp.ClientSession() as client, client.get(url) as response:
            return await response.text()
    except aiohttp.ClientError:
        return ""


async def test_serves_without_redis_and_stops_within_a_second(tmp_path: Path) -> None:
    address = free_address()
    process = await started(config(tmp_path, xds_metrics=address))

    async def serves() -> bool:
        page = await text_of(f"http://{address}/metrics")
        failures = re.search(r"^kvpilot_xds_store_failures_total (\S+)", page, re.MULTILINE)
        return "kvpilot_xds_streams 0.0" in page and failures is not None and float(failures[1]) > 0

    await until(serves, seconds=20)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert time.monotonic() - began < 1
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert b"serving 1 endpoints" in errors


def test_a_mistake_in_the_file_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path)
    path.write_text(path.read_text().replace("127.0.0.1:9\n", "pod:9\n", 1))
    assert main("xds_server", "", run, ["-c", str(path)]) == 2
    where = f"xds_server: {path}: models.m.versions.v.pools.p.endpoints.0 is 'pod:9': "
    expected = "expected ip:port, as in 10.0.0.7:8000; names are not looked up here\n"
    assert capsys.readouterr().err == where + expected


def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        for field in ("xds_address", "xds_metrics"):
            assert (
                main("xds_server", "", run, ["-c", str(config(tmp_path, **{field: f"127.0.0.1:{port}"}))])
                == 2
            )
            assert f"xds_server: {field} 127.0.0.1:{port}: cannot listen" in capsys.readouterr().err
