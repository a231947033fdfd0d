from __future__ import annotations

import asyncio
import queue
import socket
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from fleet import settings_file
from fleet.errors import StartError
from fleet.names import KSERVE_INFER, KSERVE_STREAM
from sim import kserve_pb2 as pb
from sim.grpc_server import serving_grpc
from sim.server import emulated_endpoints, grpc_services
from tests.support import free_address, until
from tests.triton_requests import cached_tokens, inputs, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fleet.settings import Settings
    from sim.backend import Backend

LONG = "one word after another " * 400


def one_engine(address: str, grpc_address: str) -> Settings:
    pool = {
        "name": "p",
        "gpu": "H100-80GB",
        "endpoints": [address],
        "grpc_endpoints": [grpc_address],
        "emulated": {"speed": 100},
    }
    versions = [{"name": "v", "pools": [pool]}]
    data = {"models": [{"name": "m", "parameters_billion": 32, "versions": versions}]}
    return settings_file.parse(data, "test.yaml")


class Engine:
    def __init__(self, address: str, backend: Backend) -> None:
        self.address = address
        self.backend = backend


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    address, grpc_address = free_address(), free_address()
    settings = one_engine(address, grpc_address)
    endpoints = emulated_endpoints(settings, "test.yaml")
    async with serving_grpc(grpc_services(settings, endpoints)):
        yield Engine(grpc_address, endpoints[address].backend)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(engine.address) as made:
        yield made


async def test_says_that_it_is_alive_and_what_it_serves(client: Any) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("m")
    assert (await client.get_server_metadata()).name == "triton"
    metadata = await client.get_model_metadata("m")
    assert [tensor.name for tensor in metadata.inputs] == ["text_input", "max_tokens", "stream"]
    config = (await client.get_model_config("m")).config
    assert config.model_transaction_policy.decoupled
    assert [tensor.name for tensor in config.output] == ["text_output"]


async def test_answers_whole_and_remembers_the_prompt(client: Any) -> None:
    first = await client.infer("m", inputs(LONG), request_id="mine")
    again = await client.infer("m", inputs(LONG))
    assert first.get_response().id == "mine"
    assert len(text_of(first)) == 8 * 4
    assert text_of(again) == text_of(first)
    assert cached_tokens(first) == 0
    assert cached_tokens(again) > 2000


async def test_streams_a_request_in_parts_and_says_which_was_the_last(engine: Engine) -> None:
    def ask(**more: bool) -> tuple[list[str], list[bool]]:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        texts: list[str] = []
        finals: list[bool] = []
        with triton.InferenceServerClient(engine.address) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("m", inputs("hello", 200, stream=True), **more)
            while not any(finals):
                result, error = answers.get(timeout=5)
                assert error is None
                texts.append(text_of(result))
                finals.append(result.get_response().parameters["triton_final_response"].bool_param)
            client.stop_stream()
        return texts, finals

    texts, finals = await asyncio.to_thread(ask)
    assert len("".join(texts)) == 200 * 4
    assert texts[-1]
    assert len(finals) > 2
    with_empty, _ = await asyncio.to_thread(ask, enable_empty_final_response=True)
    assert "".join(with_empty) == "".join(texts)
    assert with_empty[-1] == ""


async def test_refuses_what_makes_no_sense_and_goes_on(engine: Engine) -> None:
    def ask() -> list[tuple[Any, Any]]:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with triton.InferenceServerClient(engine.address) as client:
            with pytest.raises(InferenceServerException, match="unknown model"):
                client.infer("other", inputs("hello"))
            with pytest.raises(InferenceServerException, match="at least 1"):
                client.infer("m", inputs("hello", 0))
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("other", inputs("hello"))
            client.async_stream_infer("m", inputs("hello"))
            found = [answers.get(timeout=5) for _ in range(2)]
            client.stop_stream()
        return found

    (_, refused), (answered, error) = await asyncio.to_thread(ask)
    assert "unknown model" in str(refused)
    assert error is None
    assert len(text_of(answered)) == 8 * 4


async def test_a_message_that_is_no_request_is_refused(engine: Engine) -> None:
    channel: Any = grpc.aio.insecure_channel(engine.address)
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(KSERVE_INFER)(b"\xff\xff\xff")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_goes_away_takes_its_requests_along(engine: Engine) -> None:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\5\0\0\0hello", b"\0\x10\0\0"])
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    channel: Any = grpc.aio.insecure_channel(engine.address)
    async with channel:
        calls = [channel.unary_unary(KSERVE_INFER)(request.SerializeToString())]
        stream = channel.stream_stream(KSERVE_STREAM)()
        await stream.write(request.SerializeToString())
        await until(lambda: engine.backend.gauges().active == 2)
        for call in (*calls, stream):
            call.cancel()
        await until(lambda: engine.backend.gauges().active == 0)


async def test_an_address_that_is_taken_is_named() -> None:
    async with serving_grpc({}):
        pass  # nobody serves gRPC, nothing to listen on
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = one_engine(free_address(), address)
        services = grpc_services(settings, emulated_endpoints(settings, "test.yaml"))
        with pytest.raises(StartError, match=address):
            async with serving_grpc(services):
                pass
