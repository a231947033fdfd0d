"""Sessions decided from headers alone: the real Envoy keeps the body to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.clients import ask, client, nothing_in_flight, picker_count
from tests.integration.conftest import running_mesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvpilot.mesh import LocalMesh

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fast_mesh() -> AsyncIterator[LocalMesh]:
    async with running_mesh(picker={"session_fast_path": True, "silence_seconds": 4}) as made:
        yield made


async def messages_to_the_picker(mesh: LocalMesh) -> int:
    admin = (mesh.runtime / "admin-address").read_text().strip()
    async with aiohttp.ClientSession() as session, session.get(f"http://{admin}/stats") as response:
        lines = (await response.text()).splitlines()
    (sent,) = [line for line in lines if "ext_proc" in line and "stream_msgs_sent" in line]
    return int(sent.rpartition(" ")[2])


async def decided(mesh: LocalMesh, outcome: str) -> float:
    assert mesh.settings.picker_metrics is not None
    return await picker_count(mesh.settings.picker_metrics, "kvpilot_picker_requests", outcome)


async def test_further_turns_go_home_without_their_bodies(fast_mesh: LocalMesh, long_text: str) -> None:
    async with client(fast_mesh.url) as session:
        for n in range(4):
            named = {"x-session-id": f"fast-{n}"}
            first = await ask(session, f"{n} {long_text}", headers=named)
            read, early = await decided(fast_mesh, "steered"), await decided(fast_mesh, "steered-early")
            before = await messages_to_the_picker(fast_mesh)
            for turn in range(3):
                await nothing_in_flight(fast_mesh)
                further = await ask(session, f"{n} {long_text} and {turn}", headers=named, streamed=turn == 1)
                assert (further.status, further.whole) == (200, True)
                assert further.endpoint == first.endpoint
            # Headers and nothing else: a body would be a second message.
            assert await messages_to_the_picker(fast_mesh) == before + 3
            assert await decided(fast_mesh, "steered") == read
            assert await decided(fast_mesh, "steered-early") == early + 3
    await nothing_in_flight(fast_mesh)


async def test_a_large_body_passes_untouched(fast_mesh: LocalMesh) -> None:
    text = "five megabytes of words " * 220_000
    named = {"x-session-id": "large"}
    async with client(fast_mesh.url) as session:
        first = await ask(session, text, headers=named)
        early = await decided(fast_mesh, "steered-early")
        await nothing_in_flight(fast_mesh)
        again = await ask(session, text, headers=named)
    assert (first.status, again.status) == (200, 200)
    assert again.endpoint == first.endpoint
    assert again.cached_tokens > 1_000_000
    assert await decided(fast_mesh, "steered-early") == early + 1
    await nothing_in_flight(fast_mesh)


async def test_a_turn_that_has_doubled_is_read_again(fast_mesh: LocalMesh) -> None:
    named = {"x-session-id": "grows"}
    text = "word " * 4000
    async with client(fast_mesh.url) as session:
        await ask(session, text, headers=named)
        await nothing_in_flight(fast_mesh)
        read = await decided(fast_mesh, "steered")
        await ask(session, text * 3, headers=named)
    assert await decided(fast_mesh, "steered") == read + 1
    await nothing_in_flight(fast_mesh)
