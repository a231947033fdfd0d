"""What clients see when a part dies under load: nothing that had not begun is lost."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fleet import settings_file
from fleet.model import Load
from tests.integration.clients import Workers, ask, client, nothing_in_flight, picker_count, session_on
from tests.integration.conftest import FLEET, MODEL, emulated, running_mesh
from tests.support import free_address, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

CALM_SECONDS, AFTER_SECONDS = 1.5, 3.0

REQUESTS_TO_LEAVE = 200
"""Round robin gives an endpoint that is far faster than the others many in a row, but not so many."""


def kill(mesh: LocalMesh, child: str, number: signal.Signals) -> None:
    pid = mesh.children[child].pid
    assert pid is not None
    os.kill(pid, number)


async def under_load(mesh: LocalMesh, child: str, number: signal.Signals) -> Workers:
    async with Workers(mesh.url) as load:
        await asyncio.sleep(CALM_SECONDS)
        before = len(load.answers)
        kill(mesh, child, number)
        await asyncio.sleep(AFTER_SECONDS)
    assert before > 20, "there was hardly any load"
    assert len(load.answers) > before + 20, "the load did not go on"
    return load


async def steers(mesh: LocalMesh) -> bool:
    """Whether the picker decides a request sent now."""
    metrics = mesh.settings.picker_metrics
    assert metrics is not None
    before = await picker_count(metrics, "kvpilot_picker_requests", "steered")
    async with client(mesh.url) as session:
        await ask(session, "are you there?")
    return await picker_count(metrics, "kvpilot_picker_requests", "steered") > before


async def restarted(mesh: LocalMesh, child: str, restarts: int) -> None:
    program = mesh.children[child]
    await until(lambda: program.restarts > restarts and program.pid is not None, seconds=20)


async def until_steering(mesh: LocalMesh) -> None:
    async def does() -> bool:
        try:
            return await steers(mesh)
        except OSError:
            return False  # its metrics page is not there yet

    await until(does, seconds=20)


async def test_killing_the_picker_loses_no_request_and_steering_comes_back(mesh: LocalMesh) -> None:
    await until_steering(mesh)
    restarts = mesh.children["picker"].restarts
    load = await under_load(mesh, "picker", signal.SIGKILL)
    assert all(answer.whole for answer in load.answers), Counter(a.status for a in load.answers)
    await restarted(mesh, "picker", restarts)
    await until_steering(mesh)
    await nothing_in_flight(mesh)


async def test_freezing_the_picker_loses_no_request_and_delays_hardly_any(mesh: LocalMesh) -> None:
    await until_steering(mesh)
    try:
        load = await under_load(mesh, "picker", signal.SIGSTOP)
        async with client(mesh.url) as session:
            late = [await ask(session, f"frozen {n}") for n in range(20)]
    finally:
        kill(mesh, "picker", signal.SIGCONT)
    assert all(answer.whole for answer in load.answers), Counter(a.status for a in load.answers)
    # Envoy's health check has found it by now: nobody waits for the 0.25 s message timeout any more.
    assert sorted(a.seconds for a in late)[15] < 0.2
    await until_steering(mesh)
    await nothing_in_flight(mesh)


async def test_killing_redis_loses_no_request(mesh: LocalMesh) -> None:
    await until_steering(mesh)
    restarts = mesh.children["redis"].restarts
    load = await under_load(mesh, "redis", signal.SIGKILL)
    assert all(answer.whole for answer in load.answers), Counter(a.status for a in load.answers)
    killed_at = time.time()
    await restarted(mesh, "redis", restarts)
    assert await steers(mesh)

    async def all_written_again() -> bool:
        loads = await mesh.store.read(MODEL, Load)
        return len(loads) == len(mesh.settings.fleet().endpoints) and all(
            load.at > killed_at for load in loads.values()
        )

    await until(all_written_again)
    await nothing_in_flight(mesh)


async def test_killing_envoy_leaves_no_ghosts_in_the_ledger(mesh: LocalMesh) -> None:
    await until_steering(mesh)
    restarts = mesh.children["envoy"].restarts
    async with Workers(mesh.url) as load:
        await asyncio.sleep(CALM_SECONDS)
        kill(mesh, "envoy", signal.SIGKILL)  # and with it every request it carried, unreported
        await restarted(mesh, "envoy", restarts)
        await until(lambda: len(load.answers) > 0 and load.answers[-1].whole)
    await until_steering(mesh)
    await nothing_in_flight(mesh)


async def test_killing_the_xds_server_loses_no_request(mesh: LocalMesh) -> None:
    restarts = mesh.children["xds"].restarts
    load = await under_load(mesh, "xds", signal.SIGKILL)
    assert all(answer.whole for answer in load.answers), Counter(a.status for a in load.answers)
    await restarted(mesh, "xds", restarts)


async def test_a_client_cannot_choose_an_endpoint_while_the_picker_is_away(mesh: LocalMesh) -> None:
    await until_steering(mesh)
    clusters = mesh.settings.fleet().clusters
    canary, stable = ([e.address for e in clusters[f"{MODEL}/{name}"]] for name in ("canary", "stable"))
    kill(mesh, "picker", signal.SIGSTOP)
    try:
        await asyncio.sleep(0.6)  # Envoy's health check finds it frozen
        async with client(mesh.url) as session:
            plain = await session_on(session, f"{MODEL}/stable")
            for chosen in (canary[0], *stable):
                headers = {**plain, "x-gateway-destination-endpoint": chosen}
                for n in range(REQUESTS_TO_LEAVE):
                    endpoint = (await ask(session, f"hello {n}", headers=headers)).endpoint
                    assert endpoint in stable
                    if endpoint != chosen:
                        break
                else:
                    pytest.fail(f"{REQUESTS_TO_LEAVE} requests went to {chosen}, which they asked for")
    finally:
        kill(mesh, "picker", signal.SIGCONT)
    await until_steering(mesh)


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """An engine in a process of its own, which the mesh knows only by its address."""
    address = free_address()
    data = copy.deepcopy(FLEET)
    pool = {**emulated("own", "H100-80GB", 1), "endpoints": [address]}
    data["models"][0]["versions"] = [{"name": "stable", "pools": [pool]}]
    path = tmp_path / "engine.yaml"
    path.write_text(settings_file.dump(settings_file.parse(data, "engine")))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sim", "-c", str(path))
    yield address, process
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.asyncio(loop_scope="function")
async def test_killing_an_endpoint_loses_no_request_that_had_not_begun_to_answer(
    own_engine: tuple[str, asyncio.subprocess.Process],
) -> None:
    address, process = own_engine
    port = int(address.rpartition(":")[2])
    data = copy.deepcopy(FLEET)
    own = {"name": "own", "gpu": "H100-80GB", "endpoints": [address], "metrics_port": port}
    data["models"][0]["versions"] = [{"name": "stable", "pools": [own, emulated("h100", "H100-80GB", 2)]}]
    async with running_mesh(data) as mesh:
        await until_steering(mesh)
        async with Workers(mesh.url, workers=32) as load:
            await asyncio.sleep(CALM_SECONDS)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            killed_at = time.monotonic()
            await asyncio.sleep(AFTER_SECONDS)
    before = [a for a in load.answers if a.started < killed_at]
    assert any(a.endpoint == address for a in before if a.whole), "the endpoint was never used"
    lost = [a for a in load.answers if a.lost]
    assert not lost, Counter(a.status for a in lost)
    broken = [a for a in load.answers if not a.whole]
    assert all(a.streamed and a.endpoint == address for a in broken)
    assert len(broken) <= 32
    after = Counter(a.endpoint for a in load.answers if a.started > killed_at)
    assert after[address] == 0
    assert sum(after.values()) > 50
