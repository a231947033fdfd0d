from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from kvpilot.mesh.ports import free_ports

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
models:
  - name: m
    parameters_billion: 8
    versions:
      - name: v
        pools:
          - {{name: p, gpu: H100-80GB, emulated: {{count: 2}}, endpoints: ["127.0.0.1:{0}", "127.0.0.1:{1}"]}}
"""


async def start(path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sim", "-c", str(path), stderr=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_every_address_until_a_signal_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    ports = free_ports(2)
    path = tmp_path / "kvpilot.yaml"
    path.write_text(FILE.format(*ports))
    process = await start(path)
    assert process.stderr is not None
    assert b"emulating 2 endpoints" in await process.stderr.readline()
    async with aiohttp.ClientSession() as http:
        for port in ports:
            async with http.get(f"http://127.0.0.1:{port}/health") as response:
                assert response.status == 200
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 8000}
        async with http.post(f"http://127.0.0.1:{ports[0]}/v1/chat/completions", json=body):
            process.send_signal(number)
            async with asyncio.timeout(5):
                assert await process.wait() == 0
    assert await process.stderr.read() == b""


async def test_a_bad_file_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    path = tmp_path / "kvpilot.yaml"
    path.write_text("models: []")
    process = await start(path)
    _, text = await process.communicate()
    assert process.returncode == 2
    assert text.count(b"\n") == 1
    assert str(path).encode() in text


async def test_a_taken_port_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [*free_ports(1), taken.getsockname()[1]]
        path = tmp_path / "kvpilot.yaml"
        path.write_text(FILE.format(*ports))
        process = await start(path)
        _, text = await process.communicate()
    assert process.returncode == 2
    assert text.startswith(f"sim: 127.0.0.1:{ports[1]}: cannot listen".encode())
    assert text.count(b"\n") == 1
