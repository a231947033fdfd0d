from __future__ import annotations

import asyncio
import io
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet import settings_file
from fleet.errors import ConfigError, StartError
from sim.server import MAX_BODY_BYTES, emulated_endpoints, serving
from tests.support import free_address, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fleet.settings import Settings

CHAT = "/v1/chat/completions"


def fleet_of(address: str, gpu: str = "H100-80GB", **emulated: float) -> Settings:
    pool = {"name": "p", "gpu": gpu, "endpoints": [address], "emulated": emulated}
    version = {"name": "v", "pools": [pool]}
    data = {"models": [{"name": "m", "parameters_billion": 32, "versions": [version]}]}
    return settings_file.parse(data, source="test.yaml")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A slowed H100: 2,086 tokens of prefill and 9.4 tokens of answer a second."""
    address = free_address()
    async with serving(emulated_endpoints(fleet_of(address, speed=0.3), "test.yaml")):
        yield address


@pytest.fixture
async def fast() -> AsyncIterator[str]:
    """A thousand times an H100, with room for two million tokens."""
    address = free_address()
    async with serving(emulated_endpoints(fleet_of(address, speed=1000, kv_tokens=2_000_000), "test.yaml")):
        yield address


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def chat(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **fields}


async def metric(http: aiohttp.ClientSession, address: str, name: str, kind: str = "") -> float:
    async with http.get(f"http://{address}/metrics") as response:
        text = await response.text()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and (not kind or kind in sample.labels.values()):
                return sample.value
    raise AssertionError(f"{name} {kind} is not in the metrics")


async def is_idle(http: aiohttp.ClientSession, address: str) -> bool:
    return await metric(http, address, "nv_trt_llm_request_metrics", "active") == 0


async def times(http: aiohttp.ClientSession, address: str, body: dict[str, Any]) -> tuple[float, float]:
    """Seconds until the headers, and until the first byte of the body."""
    began = time.perf_counter()
    async with http.post(f"http://{address}{CHAT}", json=body) as response:
        assert response.status == 200
        headers = time.perf_counter() - began
        await response.content.readany()
        first = time.perf_counter() - began
        await response.read()
    return headers, first


async def test_a_stream_sends_headers_at_once_and_the_first_chunk_after_prefill(
    address: str, http: aiohttp.ClientSession
) -> None:
    headers, first = await times(http, address, chat("long " * 800, stream=True, max_tokens=2))
    assert headers < 0.25
    assert first > 0.45, "1,007 tokens at 2,086 a second"


async def test_an_answer_that_is_not_streamed_sends_headers_with_its_body(
    address: str, http: aiohttp.ClientSession
) -> None:
    headers, first = await times(http, address, chat("long " * 800, max_tokens=2))
    assert headers > 0.5, "the prompt as above, and a second token"
    assert first - headers < 0.2


async def test_a_second_turn_is_cached_and_answers_sooner(address: str, http: aiohttp.ClientSession) -> None:
    first_turn = chat("long " * 800, max_tokens=4)
    began = time.perf_counter()
    async with http.post(f"http://{address}{CHAT}", json=first_turn) as response:
        first = await response.json()
    cold = time.perf_counter() - began
    answer = first["choices"][0]["message"]
    follow_up = [*first_turn["messages"], answer, {"role": "user", "content": "and then?"}]
    began = time.perf_counter()
    async with http.post(
        f"http://{address}{CHAT}", json={"messages": follow_up, "max_tokens": 4}
    ) as response:
        second = await response.json()
    warm = time.perf_counter() - began
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"] - 32
    assert cached % 32 == 0
    assert warm < cold - 0.3
    assert await metric(http, address, "nv_trt_llm_kv_cache_block_metrics", "reused") == cached // 32


async def test_a_client_that_leaves_takes_its_request_out_of_the_engine(
    address: str, http: aiohttp.ClientSession
) -> None:
    for stream in (True, False):
        body = chat("long " * 300, stream=stream, max_tokens=2000)
        sending = asyncio.ensure_future(http.post(f"http://{address}{CHAT}", json=body))
        await asyncio.sleep(0.15)
        assert await metric(http, address, "nv_trt_llm_request_metrics", "active") == 1
        if stream:
            (await sending).close()
        else:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await until(lambda: is_idle(http, address))
        assert await metric(http, address, "nv_trt_llm_kv_cache_block_metrics", "used") == 0


async def test_metrics_follow_the_requests(address: str, http: aiohttp.ClientSession) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(times(http, address, chat(f"{number} " + "long " * 500, max_tokens=2)))
        await asyncio.sleep(0.15)
        assert await metric(http, address, "nv_trt_llm_request_metrics", "active") == 3
        assert await metric(http, address, "nv_trt_llm_request_metrics", "waiting") == 2
        assert await metric(http, address, "nv_trt_llm_kv_cache_block_metrics", "fraction") > 0
    assert await metric(http, address, "nv_inference_request_success_total") == 3
    assert await metric(http, address, "nv_trt_llm_request_metrics", "active") == 0


async def test_the_official_client_reads_answers_streams_and_errors(fast: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://{fast}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(**chat("hello", max_completion_tokens=8))
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 8
        assert whole.usage.prompt_tokens_details is not None
        assert whole.choices[0].finish_reason == "length"
        for asked in (True, False):
            options = {"stream": True} | ({"stream_options": {"include_usage": True}} if asked else {})
            text, usage = "", None
            stream = await client.chat.completions.create(**chat("hello", max_completion_tokens=8, **options))
            async for chunk in stream:
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                usage = chunk.usage or usage
            assert text == whole.choices[0].message.content
            assert (usage is not None) == asked
        completion = await client.completions.create(model="m", prompt="hello", max_tokens=3)
        assert len(completion.choices[0].text) == 12
        assert [model.id async for model in client.models.list()] == ["m"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(**(chat("hello") | {"model": "other"}))
        with pytest.raises(openai.BadRequestError, match="exceed the KV cache"):
            await client.chat.completions.create(**chat("x" * 9_000_000))


async def test_a_five_megabyte_prompt_is_served(fast: str, http: aiohttp.ClientSession) -> None:
    body = io.BytesIO(json.dumps(chat("x" * 5_000_000, max_tokens=1)).encode())
    async with http.post(f"http://{fast}{CHAT}", data=body) as response:
        assert response.status == 200
        assert (await response.json())["usage"]["prompt_tokens"] > 1_250_000


async def test_answers_bad_bodies_in_openais_words(fast: str, http: aiohttp.ClientSession) -> None:
    for body, status in ((b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (bytes(MAX_BODY_BYTES + 1), 413)):
        async with http.post(f"http://{fast}{CHAT}", data=io.BytesIO(body)) as response:
            assert response.status == status
            assert json.loads(await response.read())["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/v2/health/ready", "/v2/health/live"])
async def test_is_healthy(fast: str, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(f"http://{fast}{path}") as response:
        assert response.status == 200


async def test_a_taken_port_is_one_clear_error(address: str) -> None:
    with pytest.raises(StartError, match=f"^{address}: cannot listen: "):
        async with serving(emulated_endpoints(fleet_of(address), "test.yaml")):
            pass


def test_settings_that_cannot_be_emulated_are_refused() -> None:
    unplaced = {"name": "p", "gpu": "L4-24GB", "emulated": {}}
    tight = unplaced | {"endpoints": ["127.0.0.1:1"]}
    for pool, complaint in (
        (tight, r"test.yaml: .*tensor_parallel is 1: .* no room"),
        (unplaced, "`emulated` and `endpoints`"),
    ):
        models = [{"name": "m", "parameters_billion": 70, "versions": [{"name": "v", "pools": [pool]}]}]
        with pytest.raises(ConfigError, match=complaint):
            emulated_endpoints(settings_file.parse({"models": models}, source="test.yaml"), "test.yaml")
