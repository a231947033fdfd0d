"""A picker whose process lives and whose event loop does not: gRPC's core goes on answering Envoy's pings."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvpilot.mesh import programs
from tests.integration.clients import ask, client, nothing_in_flight
from tests.integration.conftest import FLEET, emulated, running_mesh
from tests.integration.test_failures import until_steering
from tests.integration.test_waiting import LONG, crowd, held
from tests.support import free_address, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvpilot.mesh.supervisor import Program

pytestmark = [pytest.mark.timeout(90)]

STUCK_PICKER = Path(__file__).with_name("stuck_picker.py")
SMALL = copy.deepcopy(FLEET)
SMALL["models"][0]["versions"] = [{"name": "stable", "pools": [emulated("h100", "H100-80GB", 2)]}]


def with_stuck_picker(name: str, module: str, config: Path) -> Program:
    made = server(name, module, config)
    if name != "picker":
        return made
    argv = (sys.executable, str(STUCK_PICKER), "-c", str(config))
    environment: Mapping[str, str] = {**made.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    return replace(made, argv=argv, environment=environment)


server = programs.server


async def test_what_a_stuck_picker_held_is_answered_within_seconds_and_it_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "server", with_stuck_picker)
    async with running_mesh(SMALL) as mesh:
        picker = mesh.children["picker"]
        waiting = asyncio.create_task(crowd(mesh))

        async def some_are_held() -> bool:
            return await held(mesh) > LONG / 2

        await until(some_are_held, seconds=20)
        assert picker.pid is not None
        restarts = picker.restarts
        os.kill(picker.pid, signal.SIGUSR1)
        stuck_at = time.monotonic()
        await until(lambda: picker.restarts > restarts, seconds=10)
        assert time.monotonic() - stuck_at < 6  # two seconds to notice
        answers = await waiting
        assert [answer for answer in answers if not answer.whole] == []
        assert max(answer.seconds for answer in answers) < 20  # and not the 120 that they may be held
        log = (mesh.logs / "picker.log").read_text()
        assert "the event loop has not moved for 2 s" in log
        assert "stand_still" in log
        await until(lambda: picker.pid is not None)
        await nothing_in_flight(mesh)


async def test_where_picks_hang_envoy_stops_asking_and_asks_again_when_they_get_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "server", with_stuck_picker)
    async with running_mesh(SMALL) as mesh, client(mesh.url) as session:
        await until_steering(mesh)
        pid = mesh.children["picker"].pid
        assert pid is not None
        os.kill(pid, signal.SIGUSR2)
        first = [await ask(session, f"first {n}") for n in range(4)]
        late = [await ask(session, f"then {n}") for n in range(20)]
        assert all(answer.whole for answer in (*first, *late))
        timeout = mesh.settings.envoy.message_timeout_seconds
        assert first[0].seconds >= timeout  # it did hang
        assert sorted(answer.seconds for answer in late)[15] < timeout
        assert "health: picks hang" in (mesh.logs / "picker.log").read_text()
        os.kill(pid, signal.SIGUSR2)
        await until_steering(mesh)
        await nothing_in_flight(mesh)


async def test_a_picker_serves_only_after_a_first_state_or_a_bounded_wait(tmp_path: Path) -> None:
    address = free_address()
    file = tmp_path / "kvpilot.yaml"
    pool = "{name: p, gpu: H100-80GB, endpoints: ['127.0.0.1:9']}"
    file.write_text(
        f"models: [{{name: m, versions: [{{name: v, pools: [{pool}]}}]}}]\n"
        f"redis_url: redis://127.0.0.1:1/0\npicker_address: {address}\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ext_proc", "-c", str(file), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="")
            first = await stub.Check(request, wait_for_ready=True)
            began = time.monotonic()
            assert first.status == health_pb2.HealthCheckResponse.NOT_SERVING

            async def serves() -> bool:
                answer = await stub.Check(request)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await until(serves, seconds=10)
            assert time.monotonic() - began < 6
    finally:
        process.terminate()
        _, said = await process.communicate()
    assert "no fleet state in 2 s" in said.decode()
    assert process.returncode == 0
