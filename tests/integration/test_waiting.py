"""Requests that the picker holds, far longer than Envoy waits for an ordinary answer of its."""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.clients import ask, client, nothing_in_flight, picker_count
from tests.integration.conftest import FLEET, emulated, running_mesh
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvpilot.mesh import LocalMesh
    from tests.integration.clients import Answer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(90)]

LONG = 24
"""Prompts of some 0.4 s each, all at once, on two endpoints: most of them have to wait in the picker."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_mesh() -> AsyncIterator[LocalMesh]:
    data = copy.deepcopy(FLEET)
    data["models"][0]["versions"] = [{"name": "stable", "pools": [emulated("h100", "H100-80GB", 2)]}]
    async with running_mesh(data) as made:
        yield made


async def held(mesh: LocalMesh) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{mesh.settings.picker_metrics}/metrics") as page,
    ):
        lines = (await page.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("kvpilot_picker_held "))


async def crowd(mesh: LocalMesh) -> list[Answer]:
    """Long prompts, all new, all at once."""
    begun = time.monotonic_ns()
    async with client(mesh.url) as session:
        texts = [f"{begun} {n} " + "word " * 120_000 for n in range(LONG)]
        return list(await asyncio.gather(*(ask(session, text, streamed=True) for text in texts)))


async def test_a_crowd_waits_in_the_picker_and_every_request_is_steered_in_the_end(
    small_mesh: LocalMesh,
) -> None:
    metrics = small_mesh.settings.picker_metrics
    assert metrics is not None
    before = await picker_count(metrics, "kvpilot_picker_requests", "steered")
    waiting = asyncio.create_task(crowd(small_mesh))

    async def many_are_held() -> bool:
        return await held(small_mesh) > LONG / 2

    await until(many_are_held, seconds=20)
    answers = await waiting
    assert all(answer.whole for answer in answers)
    longest = max(answer.seconds for answer in answers)
    assert longest > 4 * small_mesh.settings.envoy.message_timeout_seconds
    assert await picker_count(metrics, "kvpilot_picker_requests", "steered") == before + LONG
    assert await held(small_mesh) == 0
    await nothing_in_flight(small_mesh)


async def test_a_picker_that_freezes_lets_go_at_once_of_all_that_it_held(small_mesh: LocalMesh) -> None:
    waiting = asyncio.create_task(crowd(small_mesh))

    async def some_are_held() -> bool:
        return await held(small_mesh) > LONG / 2

    await until(some_are_held, seconds=20)
    pid = small_mesh.children["picker"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        answers = await waiting
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [answer for answer in answers if not answer.whole] == []
    assert max(answer.seconds for answer in answers) < 15  # two seconds to notice, and five of prefill
    await nothing_in_flight(small_mesh)
