from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import aiohttp
import pytest

from fleet.errors import ConfigError, StartError
from fleet.model import Load
from fleet.settings_file import parse
from kvpilot.mesh import LocalMesh, probe, programs
from kvpilot.mesh.supervisor import Program, Supervisor
from tests.support import free_address, until

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.settings import Settings
    from kvpilot.mesh.supervisor import Child

CHAT = {"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}

# A server that listens where its settings say; xds tells of a refusal, too.
SERVES = """
import pathlib, re, socket, time
text = pathlib.Path('CONFIG').read_text()
if 'NAME' == 'engines':
    ports = re.findall(r"- '?127.0.0.1:([0-9]+)", text)
    servers = [socket.create_server(('127.0.0.1', int(port))) for port in ports]
else:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(pathlib.Path('CONFIG').with_name('NAME.sock')))
    server.listen()
print('1 ERROR', pathlib.Path('CONFIG').parent.name, 'refused lds version 7: bad', flush=True)
time.sleep(60)
"""
ENVOY = "import time; time.sleep(60)"


def _settings() -> Settings:
    pool = {"name": "p", "gpu": "H100-80GB", "emulated": {"count": 2, "speed": 50}}
    versions = [{"name": "stable", "pools": [pool]}]
    models = [{"name": "tiny", "parameters_billion": 7, "versions": versions}]
    return parse({"listen": free_address(), "models": models}, "test")


def _programs(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def server(name: str, _module: str, config: Path) -> Program:
        own = code.replace("NAME", name).replace("CONFIG", str(config))
        return Program(name, (sys.executable, "-I", "-S", "-c", own))

    monkeypatch.setattr(programs, "server", server)


def _alive(child: Child) -> bool:
    return child.pid is not None


async def test_serves_through_envoy_and_names_and_restarts_a_killed_child() -> None:
    said: list[str] = []
    async with LocalMesh(_settings(), source="test", announce=said.append) as mesh:
        await mesh.wait_ready()
        assert list(mesh.children) == ["redis", "engines", "xds", "picker", "envoy"]
        assert len(mesh.settings.fleet().endpoints) == 2
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(f"{mesh.url}/v1/chat/completions", json=CHAT) as response:
                    assert response.status == 200
                    assert response.headers["x-kvpilot-endpoint"] in mesh.settings.fleet().endpoints
                picker = mesh.children["picker"]
                if not picker.restarts and picker.pid:
                    os.kill(picker.pid, signal.SIGKILL)
            admin = await asyncio.to_thread((mesh.runtime / "admin-address").read_text)
            async with session.get(f"http://{admin}/ready") as response:
                assert (await response.text()).strip() == "LIVE"
        await until(lambda: picker.restarts and _alive(picker))
        assert set(await mesh.store.read("tiny", Load)) == set(mesh.settings.fleet().endpoints)
        mesh.check()
    assert [line for line in said if line.startswith("picker was ended by SIGKILL; restarting in 0.2 s")]
    assert not any(_alive(child) for child in mesh.children.values())
    assert not mesh.runtime.exists()


async def test_uses_a_redis_that_is_already_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(monkeypatch, "import sys; print('NAME: enough'); sys.exit(2)")
    own = Supervisor(tmp_path, print)
    redis = own.start(await asyncio.to_thread(programs.redis, tmp_path, tmp_path / "r.sock"))
    await until(lambda: "ready to accept connections" in redis.last_line)
    mesh = LocalMesh(_settings(), source="test", redis_url=f"unix://{tmp_path}/r.sock", announce=print)
    with pytest.raises(StartError):
        await mesh.__aenter__()
    assert "redis" not in mesh.children
    assert mesh.settings.redis_url == f"unix://{tmp_path}/r.sock"
    assert _alive(redis)
    await own.stop()


async def test_a_child_that_cannot_start_is_named_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys, time\nif 'NAME' == 'xds': print('CONFIG: bad'); sys.exit(2)\ntime.sleep(60)"
    _programs(monkeypatch, code)
    mesh = LocalMesh(_settings(), source="mine.yaml", announce=print)
    with pytest.raises(StartError, match=r"^xds cannot start: mine.yaml: bad$"):
        await mesh.__aenter__()
    assert not any(_alive(child) for child in mesh.children.values())
    assert not mesh.runtime.exists()


@pytest.mark.parametrize("after", [0.05, 0.3, 0.8])
async def test_a_start_that_is_cancelled_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    _programs(monkeypatch, "import time; time.sleep(60)")
    mesh = LocalMesh(_settings(), source="test", announce=print)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(after):
            await mesh.__aenter__()
    assert not any(_alive(child) for child in mesh.children.values())
    assert not hasattr(mesh, "runtime") or not mesh.runtime.exists()


async def test_a_child_that_does_not_listen_in_time_is_named_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _programs(monkeypatch, "import time; print('NAME is thinking', flush=True); time.sleep(60)")
    monkeypatch.setattr("kvpilot.mesh.local.START_SECONDS", 0.5)
    mesh = LocalMesh(_settings(), source="test", announce=print)
    with pytest.raises(
        StartError, match=r"^engines does not listen on .* after 0.5 s; .*engines is thinking$"
    ):
        await mesh.__aenter__()


async def test_configuration_that_envoy_refuses_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(monkeypatch, SERVES)
    mesh = LocalMesh(_settings(), source="test", announce=print)
    async with mesh:
        with pytest.raises(StartError) as caught:
            await mesh.wait_ready()
    said = (
        f"xds has made configuration that Envoy does not take: {mesh.runtime.name} refused lds version 7: bad"
    )
    assert str(caught.value) == said


async def test_another_servers_answer_does_not_make_it_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(monkeypatch, SERVES.replace("refused", "took"))
    monkeypatch.setattr(programs, "envoy", lambda *_: Program("envoy", (sys.executable, "-c", ENVOY)))
    mesh = LocalMesh(_settings(), source="test", announce=print)

    async def healthy(*_: object) -> probe.Answer:
        return probe.Answer(200, "")

    monkeypatch.setattr(probe, "get", healthy)
    async with mesh:
        with pytest.raises(StartError, match=r"^envoy does not answer"):
            await mesh.wait_ready(0.3)
        await asyncio.to_thread((mesh.runtime / "admin-address").touch)
        await mesh.wait_ready(0.3)


async def test_a_child_that_never_stays_up_is_named_in_the_users_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import time\nif 'NAME' == 'xds': raise ValueError('CONFIG: odd')\ntime.sleep(60)"
    _programs(monkeypatch, code)
    with pytest.raises(StartError, match=r"^xds does not stay up .*: ValueError: mine.yaml: odd$"):
        await LocalMesh(_settings(), source="mine.yaml", announce=print).__aenter__()


async def test_no_place_for_its_files_is_a_start_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(StartError, match=r"files cannot be made: /nowhere/kvpilot-.*: No such file"):
        await LocalMesh(_settings(), source="test", announce=print).__aenter__()


async def test_every_address_that_a_server_will_listen_on_is_checked_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        settings = _settings().model_copy(update={"picker_metrics": taken})
        with pytest.raises(ConfigError, match=f"mine.yaml: picker_metrics is '{taken}'"):
            await LocalMesh(settings, source="mine.yaml", announce=print).__aenter__()
