"""Every protocol through the real Envoy with its real client: a second turn goes where the first one was."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.http as triton
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from fleet.names import ENDPOINT_HEADER
from tests.integration.clients import picker_counts
from tests.integration.conftest import MODEL, emulated, running_mesh
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvpilot.mesh import LocalMesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAMILY = "kvpilot_picker_protocol_requests"
TIMES = 4
"""Of one prompt among four endpoints: by chance they meet in one of 64 runs."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[LocalMesh]:
    """One version of four endpoints, and no test names a session: only prefixes bring requests together."""
    pools = [emulated("h100", "H100-80GB", 2), emulated("a100", "A100-80GB", 2)]
    versions = [{"name": "stable", "pools": pools}]
    async with running_mesh(
        {"models": [{"name": MODEL, "parameters_billion": 8, "versions": versions}]}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def text() -> str:
    """A prompt of some 6,000 tokens: only a cache tells its second from its first."""
    return " ".join(f"word{n % 887}" for n in range(3_500))


@pytest_asyncio.fixture(loop_scope="module")
async def http(mesh: LocalMesh) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def openai(mesh: LocalMesh) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def anthropic(mesh: LocalMesh) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=mesh.url, api_key="none", max_retries=0) as client:
        yield client


async def steered(mesh: LocalMesh, protocol: str) -> float:
    """Requests of a protocol that the picker has placed."""
    assert mesh.settings.picker_metrics is not None
    return await picker_counts(mesh.settings.picker_metrics, FAMILY, protocol, "steered")


async def test_openai_responses(mesh: LocalMesh, openai: AsyncOpenAI, text: str) -> None:
    before = await steered(mesh, "responses")
    answers = [
        await openai.responses.with_raw_response.create(
            model=MODEL, instructions="Be kind.", input=text, max_output_tokens=4
        )
        for _ in range(TIMES)
    ]
    first, *_, second = (answer.parse() for answer in answers)
    assert first.output_text == second.output_text != ""
    assert len({answer.headers[ENDPOINT_HEADER] for answer in answers}) == 1
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens > 0.9 * second.usage.input_tokens
    assert await steered(mesh, "responses") == before + TIMES


async def test_openai_responses_streamed(mesh: LocalMesh, openai: AsyncOpenAI) -> None:
    before = await steered(mesh, "responses")
    said, kinds = "", []
    async with openai.responses.stream(model=MODEL, input="What is a mesh?") as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                said += event.delta
        final = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert said == final.output_text != ""
    assert await steered(mesh, "responses") == before + 1


@pytest.mark.parametrize("given", ["one text", ["two", "texts"], [1, 2, 3]])
async def test_openai_embeddings(mesh: LocalMesh, openai: AsyncOpenAI, given: Any) -> None:
    before = await steered(mesh, "embeddings")
    answer = await openai.embeddings.create(model=MODEL, input=given, encoding_format="float")
    assert len(answer.data) == (2 if given == ["two", "texts"] else 1)
    assert answer.data[0].embedding
    assert await steered(mesh, "embeddings") == before + 1


async def test_openai_completions_streamed_and_by_token_ids(mesh: LocalMesh, openai: AsyncOpenAI) -> None:
    before = await steered(mesh, "completions")
    ids = [n * 7 % 50_000 for n in range(6_000)]
    answers = [
        await openai.completions.with_raw_response.create(model=MODEL, prompt=ids, max_tokens=4)
        for _ in range(TIMES)
    ]
    assert len({answer.headers[ENDPOINT_HEADER] for answer in answers}) == 1
    usage = answers[1].parse().usage
    assert usage is not None
    assert usage.prompt_tokens == len(ids)
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0.9 * len(ids)
    stream = await openai.completions.create(model=MODEL, prompt="Once", max_tokens=9, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
    assert await steered(mesh, "completions") == before + TIMES + 1


async def test_chat_by_token_ids(openai: AsyncOpenAI) -> None:
    answers = [
        await openai.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": "ids say it"}],
            max_tokens=4,
            extra_body={"prompt_token_ids": [n * 11 % 50_000 for n in range(6_000)]},
        )
        for _ in range(TIMES)
    ]
    assert len({answer.headers[ENDPOINT_HEADER] for answer in answers}) == 1
    usage = answers[1].parse().usage
    assert usage is not None
    assert usage.prompt_tokens == 6_000
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 5_000


async def test_anthropic_messages(mesh: LocalMesh, anthropic: AsyncAnthropic, text: str) -> None:
    before = await steered(mesh, "messages")
    answers = [
        await anthropic.messages.with_raw_response.create(
            model=MODEL,
            system="Be kind.",
            messages=[{"role": "user", "content": text}],
            max_tokens=4,
            metadata={"user_id": "somebody"},
        )
        for _ in range(TIMES)
    ]
    assert len({answer.headers[ENDPOINT_HEADER] for answer in answers}) == 1
    usage = (await answers[1].parse()).usage
    assert (usage.cache_read_input_tokens or 0) > 9 * usage.input_tokens
    assert await steered(mesh, "messages") == before + TIMES


async def test_anthropic_messages_streamed(mesh: LocalMesh, anthropic: AsyncAnthropic) -> None:
    before = await steered(mesh, "messages")
    async with anthropic.messages.stream(
        model=MODEL, messages=[{"role": "user", "content": "What is a mesh?"}], max_tokens=12
    ) as stream:
        said = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()
    assert said
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 12
    assert await steered(mesh, "messages") == before + 1


async def test_triton_generate(mesh: LocalMesh, http: httpx.AsyncClient, text: str) -> None:
    before = await steered(mesh, "generate")
    body = {"text_input": text, "max_tokens": 4, "stream": False, "parameters": {"sequence_id": 7}}
    answers = [await http.post("/v2/models/ensemble/generate", json=body) for _ in range(TIMES)]
    assert answers[0].json()["text_output"] == answers[1].json()["text_output"] != ""
    assert len({answer.headers[ENDPOINT_HEADER] for answer in answers}) == 1
    assert answers[1].json()["kv_cache_reused_blocks"] > 10 * answers[0].json()["kv_cache_reused_blocks"]
    assert await steered(mesh, "generate") == before + TIMES


async def test_triton_generate_stream(mesh: LocalMesh, http: httpx.AsyncClient) -> None:
    before = await steered(mesh, "generate_stream")
    path = f"/v2/models/{MODEL}/versions/1/generate_stream"
    async with http.stream("POST", path, json={"text_input": "Once upon", "max_tokens": 12}) as answer:
        lines = [line async for line in answer.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert "".join(json.loads(line[6:])["text_output"] for line in lines)
    assert await steered(mesh, "generate_stream") == before + 1


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compressed", [None, "gzip"])
async def test_triton_infer(mesh: LocalMesh, text: str, *, binary: bool, compressed: str | None) -> None:
    before = await steered(mesh, "infer")
    client = triton.InferenceServerClient(mesh.url.removeprefix("http://"))
    prompt = triton.InferInput("text_input", [1, 1], "BYTES")
    own = f"{binary} {compressed} {text}".encode()
    prompt.set_data_from_numpy(np.array([[own]], dtype=np.object_), binary_data=binary)
    limit = triton.InferInput("max_tokens", [1, 1], "INT32")
    limit.set_data_from_numpy(np.array([[4]], dtype=np.int32), binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
    results = [
        client.infer(
            "ensemble",
            [prompt, limit],
            outputs=outputs,
            request_compression_algorithm=compressed,
        )
        for _ in range(TIMES)
    ]
    client.close()
    blocks = [int(result.as_numpy("kv_cache_reused_blocks")[0][0]) for result in results]
    assert results[0].as_numpy("text_output")[0][0] == results[1].as_numpy("text_output")[0][0]
    assert blocks[0] < 5
    assert blocks[1] > 50
    assert await steered(mesh, "infer") == before + TIMES


OUTPUTS = ("text_output", "kv_cache_reused_blocks")


async def test_a_compressed_body_is_steered_as_the_plain_one_is(http: httpx.AsyncClient, text: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": f"zip {text}"}], "max_tokens": 1}).encode()
    plain = {"content-type": "application/json"}
    first = await http.post("/v1/chat/completions", content=body, headers=plain)
    zipped = {**plain, "content-encoding": "gzip"}
    second = await http.post("/v1/chat/completions", content=gzip.compress(body), headers=zipped)
    assert second.headers[ENDPOINT_HEADER] == first.headers[ENDPOINT_HEADER]
    usage = second.json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]


async def test_what_is_not_read_passes_untouched(mesh: LocalMesh, http: httpx.AsyncClient) -> None:
    metrics = mesh.settings.picker_metrics
    assert metrics is not None
    before = await picker_counts(metrics, "kvpilot_picker_requests", "passed")
    assert (await http.get("/v2/health/ready")).status_code == 200
    assert (await http.get(f"/v2/models/{MODEL}/ready")).status_code == 200
    assert (await http.post("/v1/unknown", json={"messages": []})).status_code == 404
    bodyless = await http.post("/v1/chat/completions")
    assert bodyless.status_code == 400  # the engine's own word

    async def counted() -> bool:
        return await picker_counts(metrics, "kvpilot_picker_requests", "passed") >= before + 4

    await until(counted)  # a request is counted after it was answered
