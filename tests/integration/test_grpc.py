"""KServe's gRPC through the real Envoy, asked by Triton's own clients."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import os
import queue
import re
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from fleet import settings_file
from fleet.model import Traffic
from fleet.names import KSERVE_SERVICE, VERSION_HEADER
from fleet.store.base import read_fleet
from sim.server import emulated_endpoints, serving
from tests.integration.clients import ask, client, nothing_in_flight, picker_count
from tests.integration.conftest import FLEET, MODEL, emulated, running_mesh
from tests.integration.test_failures import until_steering
from tests.support import free_address, until
from tests.triton_requests import cached_tokens, inputs, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

PATIENT = {"message_timeout_seconds": 5}
"""A pick that takes longer is done without: on a busy machine that could be one that a test waits for."""


def grpc_pool(name: str, gpu: str, count: int) -> dict[str, Any]:
    pool = emulated(name, gpu, count)
    pool["emulated"]["grpc"] = True
    return pool


def fleet_of(*pools: dict[str, Any]) -> dict[str, Any]:
    """One version, so that only the picker chooses."""
    data = copy.deepcopy(FLEET)
    data["models"][0]["versions"] = [{"name": "stable", "pools": list(pools)}]
    return data


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grpc_mesh() -> AsyncIterator[LocalMesh]:
    pools = (grpc_pool("h100", "H100-80GB", 2), grpc_pool("a100", "A100-80GB", 2))
    async with running_mesh(fleet_of(*pools), envoy=PATIENT) as made:
        await until_steering(made)
        yield made


def address(mesh: LocalMesh) -> str:
    return mesh.url.removeprefix("http://")


def aio_client(mesh: LocalMesh) -> Any:
    return triton_aio.InferenceServerClient(address(mesh))


async def counted(mesh: LocalMesh, outcome: str) -> float:
    """Requests that the picker has seen end so."""
    assert mesh.settings.picker_metrics is not None
    return await picker_count(mesh.settings.picker_metrics, "kvpilot_picker_requests", outcome)


async def in_flight(mesh: LocalMesh) -> int:
    traffic = await read_fleet(mesh.store, mesh.settings.fleet(), Traffic)
    return sum(each.in_flight for each in traffic.values())


async def test_texts_go_to_the_endpoints_that_have_them(grpc_mesh: LocalMesh, long_text: str) -> None:
    before = await counted(grpc_mesh, "steered")
    texts = (long_text, f"another one: {long_text}")
    async with aio_client(grpc_mesh) as asked:
        first = [await asked.infer(MODEL, inputs(text)) for text in texts]
        again = [await asked.infer(MODEL, inputs(f"{text} {n}")) for n in range(3) for text in texts]
        packed = [await asked.infer(MODEL, inputs(t), compression_algorithm="gzip") for t in texts]
    assert max(cached_tokens(answer) for answer in first) < 1000
    assert min(cached_tokens(answer) for answer in (*again, *packed)) > 20_000
    assert await counted(grpc_mesh, "steered") == before + 10
    await nothing_in_flight(grpc_mesh)


async def test_a_text_that_came_over_http_is_found_over_grpc(grpc_mesh: LocalMesh, long_text: str) -> None:
    text = f"by either way: {long_text}"
    async with aiohttp.ClientSession(grpc_mesh.url) as http:
        data = io.BytesIO(json.dumps({"text_input": text, "max_tokens": 8}).encode())
        async with http.post(f"/v2/models/{MODEL}/generate", data=data) as response:
            assert response.status == 200
    async with aio_client(grpc_mesh) as asked:
        assert cached_tokens(await asked.infer(MODEL, inputs(text))) > 20_000


async def test_a_session_has_one_version_and_versions_their_shares_by_either_way() -> None:
    data = copy.deepcopy(FLEET)
    for version in data["models"][0]["versions"]:
        version["pools"] = [grpc_pool("l40s", "L40S-48GB", 1)]

    async with running_mesh(data, envoy=PATIENT) as mesh, client(mesh.url) as http:
        channel: Any = grpc.aio.insecure_channel(address(mesh))
        async with channel:

            async def version_of(**metadata: str) -> str:
                call = channel.unary_unary(f"/{KSERVE_SERVICE}/ServerReady")(
                    b"", metadata=[*metadata.items()]
                )
                return str(dict(await call.initial_metadata())[VERSION_HEADER])

            versions = Counter([await version_of() for _ in range(1500)])
            for n in range(40):
                session = {"x-session-id": f"session-{n}"}
                plain = (await ask(http, "hello", headers=session)).version
                assert await version_of(**session) == f"{plain}/grpc"
    assert versions.keys() == {f"{MODEL}/stable/grpc", f"{MODEL}/canary/grpc"}
    assert versions[f"{MODEL}/canary/grpc"] / 1500 == pytest.approx(0.1, abs=0.03)


async def test_a_stream_is_steered_and_answers_while_it_stays_open(grpc_mesh: LocalMesh) -> None:
    async def one_runs() -> bool:
        return await in_flight(grpc_mesh) == 1

    before = await counted(grpc_mesh, "steered-early")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(address(grpc_mesh)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n in range(5):  # each is answered before the next is sent: nothing waits for the stream's end
            assert len(await asyncio.to_thread(answer_in_stream, client, answers, f"question {n}")) == 160
        await until(one_runs)  # and all of it is one request to the picker
        client.stop_stream()
    assert await counted(grpc_mesh, "steered-early") == before + 1
    await nothing_in_flight(grpc_mesh)


async def test_a_stream_that_is_called_off_leaves_nothing_in_the_ledger(grpc_mesh: LocalMesh) -> None:
    async def one_runs() -> bool:
        return await in_flight(grpc_mesh) == 1

    with triton.InferenceServerClient(address(grpc_mesh)) as client:
        client.start_stream(lambda **_: None)
        client.async_stream_infer(MODEL, inputs("a long story", 8000, stream=True))
        await until(one_runs)
        client.stop_stream(cancel_requests=True)
    await nothing_in_flight(grpc_mesh)


def answer_in_stream(client: Any, answers: queue.Queue[tuple[Any, Any]], text: str) -> str:
    """Ask in an open stream and put the answer's parts together, up to its last."""
    client.async_stream_infer(MODEL, inputs(text, 40, stream=True), enable_empty_final_response=True)
    answer, final = "", False
    while not final:
        result, error = answers.get(timeout=5)
        assert error is None
        answer += text_of(result)
        final = result.get_response().parameters["triton_final_response"].bool_param
    return answer


async def test_questions_about_servers_and_models_and_refusals_pass(grpc_mesh: LocalMesh) -> None:
    async with aio_client(grpc_mesh) as asked:
        assert await asked.is_server_ready()
        assert await asked.is_model_ready(MODEL)
        assert (await asked.get_model_config(MODEL)).config.name == MODEL
        with pytest.raises(InferenceServerException, match="unknown model") as refused:
            await asked.infer("nobody", inputs("hello"))
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    await nothing_in_flight(grpc_mesh)


async def test_without_the_picker_calls_and_streams_go_by_weight(grpc_mesh: LocalMesh) -> None:
    pid = grpc_mesh.children["picker"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.6)  # Envoy's health check finds it frozen
        async with aio_client(grpc_mesh) as asked:
            assert text_of(await asked.infer(MODEL, inputs("hello")))
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with triton.InferenceServerClient(address(grpc_mesh)) as blocking:
            blocking.start_stream(lambda result, error: answers.put((result, error)))
            assert len(await asyncio.to_thread(answer_in_stream, blocking, answers, "hello")) == 160
            blocking.stop_stream()
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_steering(grpc_mesh)


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[tuple[dict[str, Any], asyncio.subprocess.Process]]:
    """An engine in a process of its own, and the pool by which a mesh knows it."""
    http, grpc_address = free_address(), free_address()
    known: dict[str, Any] = {
        "name": "own",
        "gpu": "H100-80GB",
        "endpoints": [http],
        "grpc_endpoints": [grpc_address],
    }
    path = tmp_path / "engine.yaml"
    data = fleet_of({**emulated("own", "H100-80GB", 1), **known})
    path.write_text(settings_file.dump(settings_file.parse(data, "engine")))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sim", "-c", str(path))
    yield known | {"metrics_port": int(http.rpartition(":")[2])}, process
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_an_endpoint_that_says_so_by_its_status_is_passed_over(status: grpc.StatusCode) -> None:
    refused = 0

    async def refuse(_: bytes, context: Any) -> None:
        nonlocal refused
        refused += 1
        await context.abort(status, "not now")

    http, grpc_address = free_address(), free_address()
    known: dict[str, Any] = {
        "name": "own",
        "gpu": "H100-80GB",
        "endpoints": [http],
        "grpc_endpoints": [grpc_address],
    }
    own = settings_file.parse(fleet_of({**emulated("own", "H100-80GB", 1), **known}), "engine")
    handler: Any = grpc.unary_unary_rpc_method_handler(refuse)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(KSERVE_SERVICE, {"ModelInfer": handler}),)
    )
    server.add_insecure_port(grpc_address)
    await server.start()
    known["metrics_port"] = int(http.rpartition(":")[2])
    async with (
        serving(emulated_endpoints(own, "engine")),
        running_mesh(fleet_of(known, grpc_pool("a100", "A100-80GB", 1)), envoy=PATIENT) as mesh,
        aio_client(mesh) as triton_client,
    ):
        await until_steering(mesh)
        answers = [await triton_client.infer(MODEL, inputs(f"question {n}")) for n in range(12)]
        assert all(text_of(answer) for answer in answers)
        assert 0 < refused < 12  # after two failures in a row it is left alone
        await nothing_in_flight(mesh)
    await server.stop(0)


@pytest.mark.asyncio(loop_scope="function")
async def test_calls_to_an_endpoint_that_dies_before_it_answers_are_answered_by_others(
    own_engine: tuple[dict[str, Any], asyncio.subprocess.Process],
) -> None:
    pool, process = own_engine

    async def works() -> bool:
        async with aiohttp.ClientSession() as http:
            try:
                page = await http.get(f"http://{pool['endpoints'][0]}/metrics")
            except aiohttp.ClientError:
                return False
            found = re.search(r'nv_trt_llm_request_metrics\{[^}]*"active"[^}]*\} (\d+)', await page.text())
        assert found is not None
        return int(found[1]) > 0

    async with (
        running_mesh(fleet_of(pool, grpc_pool("h100", "H100-80GB", 1)), envoy=PATIENT) as mesh,
        aio_client(mesh) as triton_client,
        asyncio.TaskGroup() as tasks,
    ):
        await until_steering(mesh)
        before = await counted(mesh, "steered")
        calls = [
            tasks.create_task(triton_client.infer(MODEL, inputs(f"question {n}", 2000))) for n in range(24)
        ]
        await until(works)
        process.kill()
        await process.wait()
        answers = await asyncio.gather(*calls)
        assert [len(text_of(answer)) for answer in answers] == [8000] * 24
        assert await counted(mesh, "steered") == before + 24
        await nothing_in_flight(mesh)
