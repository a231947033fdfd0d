"""KServe's gRPC through the real Envoy, asked by Triton's own client."""

from __future__ import annotations

import asyncio
import copy
import queue
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from fleet.model import Traffic
from fleet.store.base import read_fleet
from tests.integration.clients import nothing_in_flight, picker_count
from tests.integration.conftest import FLEET, MODEL, running_mesh
from tests.support import until
from tests.triton_requests import cached_tokens, inputs, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]


def grpc_fleet() -> dict[str, Any]:
    data = copy.deepcopy(FLEET)
    for version in data["models"][0]["versions"]:
        for pool in version["pools"]:
            pool["emulated"]["grpc"] = True
    return data


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grpc_mesh() -> AsyncIterator[LocalMesh]:
    async with running_mesh(grpc_fleet()) as made:
        yield made


def address(mesh: LocalMesh) -> str:
    return mesh.url.removeprefix("http://")


async def steered(mesh: LocalMesh, label: str) -> float:
    assert mesh.settings.picker_metrics is not None
    return await picker_count(mesh.settings.picker_metrics, "kvpilot_picker_requests", label)


async def test_the_same_long_text_goes_to_the_endpoint_that_has_it(
    grpc_mesh: LocalMesh, long_text: str
) -> None:
    before = await steered(grpc_mesh, "steered")
    async with triton_aio.InferenceServerClient(address(grpc_mesh)) as client:
        session = {"x-session-id": "stays-on-one-version"}
        answers = [await client.infer(MODEL, inputs(long_text), headers=session) for _ in range(4)]
    assert [cached_tokens(a) > 20_000 for a in answers] == [False, True, True, True]
    assert await steered(grpc_mesh, "steered") == before + 4
    await nothing_in_flight(grpc_mesh)


async def in_flight(mesh: LocalMesh) -> int:
    traffic = await read_fleet(mesh.store, mesh.settings.fleet(), Traffic)
    return sum(each.in_flight for each in traffic.values())


async def test_a_stream_is_steered_and_answers_while_it_stays_open(grpc_mesh: LocalMesh) -> None:
    async def one_runs() -> bool:
        return await in_flight(grpc_mesh) == 1

    before = await steered(grpc_mesh, "steered-early")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(address(grpc_mesh)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n in range(5):  # each is answered before the next is sent: nothing waits for the stream's end
            client.async_stream_infer(
                MODEL, inputs(f"question {n}", 40, stream=True), enable_empty_final_response=True
            )
            assert len(await asyncio.to_thread(whole_answer, answers)) == 160
        await until(one_runs)  # and all of it is one request to the picker
        client.stop_stream()
    assert await steered(grpc_mesh, "steered-early") == before + 1
    await nothing_in_flight(grpc_mesh)


def whole_answer(answers: queue.Queue[tuple[Any, Any]]) -> str:
    """The parts of a streamed answer up to its last."""
    text, final = "", False
    while not final:
        result, error = answers.get(timeout=5)
        assert error is None
        text += text_of(result)
        final = result.get_response().parameters["triton_final_response"].bool_param
    return text


async def test_questions_about_servers_and_models_pass(grpc_mesh: LocalMesh) -> None:
    async with triton_aio.InferenceServerClient(address(grpc_mesh)) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        assert (await client.get_model_config(MODEL)).config.name == MODEL
