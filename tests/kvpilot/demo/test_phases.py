from __future__ import annotations

import io
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from fleet.errors import StartError
from fleet.settings_file import parse
from kvpilot.demo.phases import Schedule, run_phase, schedule
from kvpilot.demo.progress import PlainProgress
from kvpilot.demo.workload import Session, Turn
from sim.exposition import PREFILL_BUSY_COUNTER as COUNTER
from tests.kvpilot.demo.upstream import Upstream, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fleet.settings import Settings

MODEL = {
    "name": "m",
    "versions": [{"name": "v", "pools": [{"name": "p", "gpu": "L4-24GB", "emulated": {"count": 2}}]}],
}


@dataclass
class FakeMesh:
    """A mesh that is one upstream."""

    url: str
    settings: Settings
    refuses: bool = False

    async def wait_ready(self, timeout: float) -> None:
        if self.refuses:
            raise StartError(f"engines did not listen within {timeout} s")


class Meshes:
    """Opens fake meshes and remembers how they were asked for."""

    def __init__(self, upstream: Upstream, *, refuses: bool = False) -> None:
        self._upstream = upstream
        self._refuses = refuses
        self.opened: list[Settings] = []
        self.closed = 0

    @asynccontextmanager
    async def __call__(self, settings: Settings) -> AsyncIterator[FakeMesh]:
        self.opened.append(settings)
        address = self._upstream.url.removeprefix("http://")
        pool = settings.models[0].versions[0].pools[0].model_copy(update={"endpoints": (address,)})
        version = settings.models[0].versions[0].model_copy(update={"pools": (pool,)})
        model = settings.models[0].model_copy(update={"versions": (version,)})
        self._upstream.endpoint = address
        try:
            resolved = settings.model_copy(update={"models": (model,)})
            yield FakeMesh(self._upstream.url, resolved, self._refuses)
        finally:
            self.closed += 1


def _settings() -> Settings:
    return parse({"models": [MODEL]}, "test")


def _quiet() -> PlainProgress:
    return PlainProgress(Console(file=io.StringIO()))


def _planned(*starts: float) -> Schedule:
    sessions = tuple(Session(i, at, 0, (Turn(0.0, 20, 4),)) for i, at in enumerate(starts))
    full = schedule(_settings(), 1.0, 1)
    return Schedule("m", full.arms, sessions, 1, warm_up=0.3, seconds=0.6)


async def test_a_phase_steers_as_its_name_says_and_counts_what_was_sent_after_the_warm_up() -> None:
    async with serving(Upstream(metrics=f"{COUNTER} 3\n")) as upstream:
        meshes = Meshes(upstream)
        figures = await run_phase(meshes, _settings(), "weighted", _planned(0.0, 0.1, 0.4, 0.5), _quiet())
    assert [opened.steering for opened in meshes.opened] == ["weighted"]
    assert meshes.closed == 1
    assert len(upstream.bodies) == 4
    assert (figures.requests, figures.failed) == (2, 0)
    (endpoint,) = figures.per_endpoint.values()
    assert (endpoint.requests, endpoint.prefill_busy) == (2, 0.0)
    assert figures.offered_load > 0


async def test_no_two_phases_send_the_same_prompt() -> None:
    async with serving(Upstream()) as upstream:
        for steering in ("round_robin", "steered"):
            await run_phase(Meshes(upstream), _settings(), steering, _planned(0.0), _quiet())
    one, two = (body["messages"][0]["content"] for body in upstream.bodies)
    assert one[:10] != two[:10]
    assert one[10:] == two[10:]


async def test_a_mesh_that_does_not_come_up_is_closed_and_its_error_is_the_callers() -> None:
    async with serving(Upstream()) as upstream:
        meshes = Meshes(upstream, refuses=True)
        with pytest.raises(StartError, match="did not listen"):
            await run_phase(meshes, _settings(), "steered", _planned(0.0), _quiet())
    assert meshes.closed == 1
    assert upstream.bodies == []


def test_the_schedule_is_the_same_for_a_seed_and_warms_up_for_a_tenth_but_a_second_at_least() -> None:
    assert schedule(_settings(), 20.0, 5) == schedule(_settings(), 20.0, 5)
    assert schedule(_settings(), 20.0, 5) != schedule(_settings(), 20.0, 6)
    assert schedule(_settings(), 20.0, 5).warm_up == 2.0
    assert schedule(_settings(), 3.0, 5).warm_up == 1.0
    assert schedule(_settings(), 20.0, 5).until == 22.0
