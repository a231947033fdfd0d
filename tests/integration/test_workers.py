"""Two workers behind one real Envoy: each gets its share, and each learns of every end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import aiohttp
import pytest

from fleet import address as addresses
from kvpilot.mesh.ports import LOOPBACK, free_ports
from tests.integration.clients import many, nothing_in_flight, picker_count
from tests.integration.conftest import running_mesh
from tests.support import until

if TYPE_CHECKING:
    from kvpilot.mesh import LocalMesh

pytestmark = pytest.mark.timeout(120)

WORKERS = 2
REQUESTS = 400


def neighbours() -> str:
    """An address whose next port is free, too."""
    for _ in range(1000):
        ports = sorted(free_ports(20))
        for port, following in itertools.pairwise(ports):
            if following == port + 1:
                return f"{LOOPBACK}:{port}"
    raise AssertionError("no two free ports side by side")


async def gauge(page: str, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"http://{page}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def pages(mesh: LocalMesh) -> list[str]:
    assert mesh.settings.picker_metrics is not None
    return [addresses.of_worker(mesh.settings.picker_metrics, n) for n in range(WORKERS)]


async def test_workers_share_the_picks_of_one_envoy_and_all_ends_reach_all_of_them() -> None:
    picker = {"silence_seconds": 60, "workers": WORKERS}  # nothing is given up: every end is heard of
    async with running_mesh(picker_metrics=neighbours(), picker=picker) as mesh:
        for page in pages(mesh):

            async def together(page: str = page) -> bool:
                return await gauge(page, "kvpilot_picker_replicas") == WORKERS

            await until(together)
        answers = await many(mesh.url, [(f"question {n} " * 40, {}) for n in range(REQUESTS)])
        assert all(answer.whole for answer in answers)
        picked = [await picker_count(page, "kvpilot_picker_requests", "steered") for page in pages(mesh)]
        assert sum(picked) >= REQUESTS
        assert max(picked) / min(picked) <= 1.3, picked
        await nothing_in_flight(mesh)
        for page in pages(mesh):

            async def empty(page: str = page) -> bool:
                return await gauge(page, "kvpilot_picker_in_flight") == 0

            await until(empty, seconds=20)
            assert await gauge(page, "kvpilot_picker_expired_total") == 0
            heard = await picker_count(page, "kvpilot_picker_events", "heard")
            assert heard >= min(picked)  # of each, what the other one placed
