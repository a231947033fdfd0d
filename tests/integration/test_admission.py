"""Requests that are turned away: what clients of the real Envoy see, and whose word counts."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, RateLimitError

from tests.integration.clients import CHAT, ask, client, nothing_in_flight, picker_count
from tests.integration.conftest import FLEET, MODEL, emulated, running_mesh
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kvpilot.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PRIORITY, TENANT = "x-gateway-priority", "x-gateway-tenant"
Got = tuple[int, Any, bytes]
WINDOW = 3.0
BUDGET = 4000  # tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict_mesh() -> AsyncIterator[LocalMesh]:
    data = copy.deepcopy(FLEET)
    data["models"][0]["versions"] = [{"name": "stable", "pools": [emulated("h100", "H100-80GB", 2)]}]
    data["trust"] = {"tenant": [f"header:{TENANT}"], "priority": [f"header:{PRIORITY}"]}
    data["admission"] = {
        "shed": True,
        "levels": [
            {"priority": -1000, "wait_seconds": 0.5},
            {"priority": 0, "wait_seconds": 60, "head_start_seconds": 60},
        ],
    }
    data["tenants"] = {
        "budget_window_seconds": WINDOW,
        "known": [{"name": "small", "budget_tokens": BUDGET}],
    }
    async with running_mesh(data) as made:
        yield made


async def refusals(mesh: LocalMesh, reason: str) -> float:
    metrics = mesh.settings.picker_metrics
    assert metrics is not None
    return await picker_count(metrics, "kvpilot_picker_shed", reason)


def crowd(mesh: LocalMesh, headers: dict[str, str], number: int) -> list[asyncio.Task[Got]]:
    """Long prompts of some 0.4 s each, all new, all at once: status, response headers and body of each."""
    begun = time.monotonic_ns()

    async def one(n: int) -> Got:
        content = f"{begun} {n} " + "word " * 120_000
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, "stream": True}
        async with client(mesh.url) as session:
            data = aiohttp.BytesPayload(json.dumps(body).encode())
            async with session.post(CHAT, data=data, headers=headers) as response:
                return response.status, response.headers, await response.read()

    return [asyncio.create_task(one(n)) for n in range(number)]


async def test_under_overload_batch_is_told_to_come_again_while_people_are_served(
    strict_mesh: LocalMesh,
) -> None:
    shed = await refusals(strict_mesh, "saturated")
    batch = crowd(strict_mesh, {PRIORITY: "batch"}, 24)

    async def some_are_refused() -> bool:
        return await refusals(strict_mesh, "saturated") > shed

    await until(some_are_refused, seconds=20)
    async with client(strict_mesh.url) as session:
        people = await asyncio.gather(*(ask(session, f"What is {n}?") for n in range(8)))
    answers = await asyncio.gather(*batch)
    assert [answer.status for answer in people] == [200] * 8
    refused = [(headers, body) for status, headers, body in answers if status == 429]
    served = [status for status, _, _ in answers if status == 200]
    assert len(refused) + len(served) == len(answers)
    assert refused
    assert served
    for headers, body in refused:
        assert 1 <= int(headers["retry-after"]) <= 60
        assert headers["x-kvpilot-reason"] in ("saturated", "displaced")
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["error"]["code"] == "overloaded"
    await nothing_in_flight(strict_mesh)


async def test_batch_that_is_held_makes_room_for_people_and_is_told_so() -> None:
    data = copy.deepcopy(FLEET)
    data["models"][0]["versions"] = [{"name": "stable", "pools": [emulated("h100", "H100-80GB", 2)]}]
    data["trust"] = {"priority": [f"header:{PRIORITY}"]}
    levels = [{"priority": -1000, "wait_seconds": 1}, {"priority": 0, "wait_seconds": 1}]
    data["admission"] = {"shed": True, "levels": levels}
    async with running_mesh(data) as mesh, client(mesh.url) as session:
        batch = crowd(mesh, {PRIORITY: "batch"}, 16)

        async def some_are_refused() -> bool:
            return await refusals(mesh, "saturated") > 0

        await until(some_are_refused, seconds=20)
        people = await asyncio.gather(*(ask(session, f"What is {n}?") for n in range(4)))
        answers = await asyncio.gather(*batch)
        assert [answer.status for answer in people] == [200] * 4
        displaced = [h for status, h, _ in answers if h.get("x-kvpilot-reason") == "displaced"]
        assert displaced
        assert all(int(headers["retry-after"]) >= 1 for headers in displaced)
        assert await refusals(mesh, "displaced") == len(displaced)
        await nothing_in_flight(mesh)


async def test_a_priority_from_a_header_that_nobody_trusts_has_no_effect(strict_mesh: LocalMesh) -> None:
    for header in ("x-priority", "x-kvpilot-priority", "priority"):
        answers = await asyncio.gather(*crowd(strict_mesh, {header: "batch"}, 8))
        assert [status for status, _, _ in answers] == [200] * 8
        await nothing_in_flight(strict_mesh)


async def use_up(mesh: LocalMesh, headers: dict[str, str]) -> list[int]:
    """Prompts of some 500 tokens, one after the other, until one is refused; all statuses."""
    statuses = []
    async with client(mesh.url) as session:
        for n in range(40):
            statuses.append((await ask(session, f"{n} " + "word " * 400, headers=headers)).status)
            if statuses[-1] != 200:
                break
            await asyncio.sleep(0.1)  # in which leases are renewed
    return statuses


async def test_a_tenant_over_its_budget_is_refused_and_recovers_after_the_window(
    strict_mesh: LocalMesh,
) -> None:
    small = {TENANT: "small"}
    statuses = await use_up(strict_mesh, small)
    assert statuses[-1] == 429
    assert 4 <= len(statuses) <= 14  # 4,000 tokens and what is stated above it, at 500 each
    assert await refusals(strict_mesh, "budget") >= 1
    async with AsyncOpenAI(
        base_url=f"{strict_mesh.url}/v1", api_key="none", max_retries=0, default_headers=small
    ) as openai:
        with pytest.raises(RateLimitError) as caught:
            await openai.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=1
            )
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["x-kvpilot-reason"] == "budget"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 2 * WINDOW
    async with client(strict_mesh.url) as session:
        for others in ({TENANT: "large"}, {}):
            assert (await ask(session, "hello", headers=others)).status == 200
        assert (await ask(session, "hello", headers={**small, "x-tenant": "large"})).status == 429
        await asyncio.sleep(1.1 * WINDOW)

        async def served_again() -> bool:
            return (await ask(session, "hello", headers=small)).status == 200

        await until(served_again, seconds=5)


async def test_tenants_of_a_trusted_header_share_no_blocks_and_those_of_another_header_do(
    strict_mesh: LocalMesh, long_text: str
) -> None:
    async def matched(tenants: list[dict[str, str]]) -> list[float]:
        """How much of the same prompt the picker believed to be cached, each time."""
        text = f"{time.monotonic_ns()} {long_text}"
        found = []
        async with client(strict_mesh.url) as session:
            for headers in tenants:
                before = await known_blocks(strict_mesh)
                assert (await ask(session, text, headers=headers)).status == 200

                found.append(await known_blocks(strict_mesh) - before)
        return found

    new, again, other = await matched([{TENANT: "a"}, {TENANT: "a"}, {TENANT: "b"}])
    assert new > 100
    assert (again, other) == (0, new)
    new, again, other = await matched([{"x-tenant": "a"}, {"x-tenant": "a"}, {"x-tenant": "b"}])
    assert new > 100
    assert (again, other) == (0, 0)


async def known_blocks(mesh: LocalMesh) -> float:
    """Distinct blocks in the picker's index, once it has counted them anew."""
    await asyncio.sleep(1.2)
    url = f"http://{mesh.settings.picker_metrics}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as page:
        lines = (await page.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("kvpilot_picker_known_blocks "))
