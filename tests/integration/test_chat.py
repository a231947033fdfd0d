"""The official client against the real Envoy: what a user of an unchanged application sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from fleet.model import Rate, Traffic
from fleet.names import ENDPOINT_HEADER
from fleet.store.base import read_fleet
from tests.integration.clients import ask, client, nothing_in_flight, picker_count, session_on
from tests.integration.conftest import MODEL
from tests.support import until

if TYPE_CHECKING:
    from kvpilot.mesh import LocalMesh

pytestmark = pytest.mark.asyncio(loop_scope="module")


def openai_client(mesh: LocalMesh) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0)


async def test_answers_whole_with_usage(mesh: LocalMesh) -> None:
    async with openai_client(mesh) as openai:
        answer = await openai.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "What is a mesh?"}], max_tokens=12
        )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


async def test_streams_an_answer_with_usage_only_where_asked(mesh: LocalMesh) -> None:
    async with openai_client(mesh) as openai:
        for wanted in (True, False):
            stream = await openai.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "What is a mesh?"}],
                max_tokens=40,
                stream=True,
                stream_options={"include_usage": wanted},
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert [c.usage is not None for c in chunks if not c.choices] == ([True] if wanted else [])


async def test_completions_are_served_too(mesh: LocalMesh) -> None:
    async with openai_client(mesh) as openai:
        answer = await openai.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=5)
    assert answer.choices[0].text


async def test_the_second_turn_lands_where_the_first_was_computed_and_finds_it_cached(
    mesh: LocalMesh, long_text: str
) -> None:
    async with openai_client(mesh) as openai:
        for n in range(8):
            session = {"x-session-id": f"turns-{n}"}
            messages: list[Any] = [{"role": "user", "content": f"{n} {long_text}"}]
            first = await openai.chat.completions.with_raw_response.create(
                model=MODEL, messages=messages, max_tokens=8, extra_headers=session
            )
            said = first.parse().choices[0].message.content
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Go on."}]
            second = await openai.chat.completions.with_raw_response.create(
                model=MODEL, messages=messages, max_tokens=8, extra_headers=session
            )
            assert second.headers[ENDPOINT_HEADER] == first.headers[ENDPOINT_HEADER]
            usage = second.parse().usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            cached = usage.prompt_tokens_details.cached_tokens
            assert cached is not None
            assert cached > 0.95 * usage.prompt_tokens


async def test_a_body_nobody_can_read_passes_through_to_the_engine(mesh: LocalMesh) -> None:
    async with client(mesh.url) as session:
        for body in (b"", b"{", b"\xff\xfe", b"[]"):
            async with session.post("/v1/chat/completions", data=body) as response:
                assert response.status == 400  # the engine's own word
                assert "error" in await response.json()
    async with openai_client(mesh) as openai:
        with pytest.raises(BadRequestError):
            await openai.chat.completions.create(model=MODEL, messages=[], max_tokens=1)


async def test_paths_that_are_not_steered_are_served_by_weights(mesh: LocalMesh) -> None:
    async with openai_client(mesh) as openai:
        assert [m.id async for m in openai.models.list()] == [MODEL]


async def test_a_prompt_of_five_megabytes_is_served_and_steered(mesh: LocalMesh) -> None:
    metrics = mesh.settings.picker_metrics
    assert metrics is not None
    before = await picker_count(metrics, "kvpilot_picker_requests", "steered")
    text = "five megabytes of words " * 220_000
    assert len(text) > 5_000_000
    one_version = {"x-session-id": "five megabytes"}
    async with client(mesh.url) as session:
        first = await ask(session, text, headers=one_version)
        again = await ask(session, text, headers=one_version)
    assert (first.status, again.status) == (200, 200)
    assert again.endpoint == first.endpoint
    assert again.cached_tokens > 1_000_000
    assert await picker_count(metrics, "kvpilot_picker_requests", "steered") == before + 2


async def test_a_client_cannot_choose_an_endpoint(mesh: LocalMesh, long_text: str) -> None:
    async with client(mesh.url) as session:
        steered = await ask(session, long_text, headers={"x-session-id": "spoof"})
        others = [a for a in mesh.settings.fleet().endpoints if a != steered.endpoint]
        for other in others:
            spoof = {"x-session-id": "spoof", "x-gateway-destination-endpoint": other}
            assert (await ask(session, long_text, headers=spoof)).endpoint == steered.endpoint


async def test_an_answer_that_takes_longer_than_the_picker_waits_for_news_stays_in_its_ledger(
    mesh: LocalMesh,
) -> None:
    async with client(mesh.url) as session, asyncio.TaskGroup() as tasks:
        canary = await session_on(session, f"{MODEL}/canary")  # the slowest hardware
        asking = tasks.create_task(ask(session, "a long story", headers=canary, max_tokens=8000))
        await asyncio.sleep(mesh.settings.picker.silence_seconds + 1.5)
        assert not asking.done(), "the answer was too short to tell"
        traffic = await mesh.store.read(MODEL, Traffic)
        assert sum(t.in_flight for t in traffic.values()) == 1
    assert asking.result().whole


async def test_the_picker_hears_of_every_answer(mesh: LocalMesh) -> None:
    metrics = mesh.settings.picker_metrics
    assert metrics is not None
    before = await picker_count(metrics, "kvpilot_picker_log_entries", "applied")
    async with client(mesh.url) as session:
        for n in range(10):
            await ask(session, f"hello {n}", streamed=n % 2 == 0)

    async def heard_of_all() -> bool:
        return await picker_count(metrics, "kvpilot_picker_log_entries", "applied") >= before + 10

    await until(heard_of_all, seconds=5)
    await nothing_in_flight(mesh)  # and so of each one's end
    assert await picker_count(metrics, "kvpilot_picker_log_entries", "dropped") == 0


async def test_error_answers_at_once_do_not_draw_traffic_to_whoever_gives_them(mesh: LocalMesh) -> None:
    before = await read_fleet(mesh.store, mesh.settings.fleet(), Rate)
    async with client(mesh.url) as session:
        for n in range(60):
            body = {
                "model": "no-such-model",
                "messages": [{"role": "user", "content": f"{n} " + "word " * 3000}],
                "stream": True,
            }
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 404
    await nothing_in_flight(mesh)
    await asyncio.sleep(2)  # what would have been learned would be stored by now
    assert {
        address: rate.observations
        for address, rate in (await read_fleet(mesh.store, mesh.settings.fleet(), Rate)).items()
    } == {address: rate.observations for address, rate in before.items()}
