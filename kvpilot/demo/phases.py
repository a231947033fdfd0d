"""Runs the three phases, each in a mesh of its own, and prints what came of them.

The load starts a tenth of the phase (at least a second) early; requests sent before the phase begins warm
connections, caches and learned rates up, in every phase alike, and are not counted.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from fleet.errors import KvpilotError
from fleet.store.redis import RedisStore
from kvpilot.demo import picture, report
from kvpilot.demo.client import Drive, Outcome, drive
from kvpilot.demo.load import Arm, arms, offered_load, session_rate
from kvpilot.demo.prefill import read_prefill
from kvpilot.demo.progress import DemoProgress, progress_on
from kvpilot.demo.workload import Session, plan, usual_pause
from kvpilot.mesh import LocalMesh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleet.settings import Settings, Steering

READY_SECONDS = 60.0
"""For a mesh to come up: a few seconds usually, longer on a small machine that is busy."""

_TICK_SECONDS = 0.25  # between two looks at the progress


class Mesh(Protocol):
    """What the demo needs of a running mesh (`kvpilot.mesh.LocalMesh`)."""

    @property
    def url(self) -> str:
        """Where Envoy listens."""

    @property
    def settings(self) -> Settings:
        """With every endpoint's address."""

    async def wait_ready(self, timeout: float) -> None:
        """Return once requests are served. Raises KvpilotError."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The same for all phases. Times are seconds from the start of the load; counted is from `warm_up` on."""

    model: str
    arms: tuple[Arm, ...]
    sessions: tuple[Session, ...]
    seed: int
    warm_up: float
    seconds: float

    @property
    def until(self) -> float:
        """When the last request may be sent."""
        return self.warm_up + self.seconds


def schedule(settings: Settings, seconds: float, seed: int) -> Schedule:
    """The load for phases of `seconds` on the first model of `settings`."""
    model = settings.models[0]
    versions = arms(model)
    warm_up, pause = max(1.0, seconds / 10), usual_pause(seconds)
    rate = session_rate(versions, seed, (warm_up, warm_up + seconds), pause)
    sessions = plan(seed, rate, warm_up + seconds, pause)
    return Schedule(model.name, versions, sessions, seed, warm_up, seconds)


async def run_demo(
    settings: Settings,
    source: str,
    *,
    seconds: float,
    order: Sequence[Steering],
    seed: int,
    redis_url: str | None,
    as_json: bool,
) -> None:
    """Run the phases in `order`, each of `seconds`, and print the result on stdout, progress on stderr.

    The first model of `settings` is driven. `source` names the settings in errors; `redis_url` is someone's
    own Redis, whose records of these models are removed before every phase. Raises KvpilotError where a mesh
    cannot start, or the demo is cancelled and so has no result; nothing is left running.
    """
    with progress_on(Console(stderr=True)) as progress:

        def open_mesh(phase_settings: Settings) -> AbstractAsyncContextManager[Mesh]:
            return LocalMesh(phase_settings, source=source, redis_url=redis_url, announce=progress.say)

        try:
            planned = await asyncio.to_thread(schedule, settings, seconds, seed)
            results = {}
            for steering in order:
                await _forget(redis_url, settings)
                results[steering] = await run_phase(open_mesh, settings, steering, planned, progress)
        except asyncio.CancelledError as error:
            # Whoever waits for figures must not take their absence for success.
            raise KvpilotError("the demo was ended before it had a result") from error
    if as_json:
        print(report.to_json(results))
    else:
        picture.show(results, Console())


async def run_phase(
    open_mesh: Callable[[Settings], AbstractAsyncContextManager[Mesh]],
    settings: Settings,
    steering: Steering,
    planned: Schedule,
    progress: DemoProgress,
) -> report.PhaseFigures:
    """One phase in a fresh mesh with `steering`; what the client saw of it."""
    progress.say(f"{steering}: starting a fresh mesh")
    async with open_mesh(settings.model_copy(update={"steering": steering})) as mesh:
        await mesh.wait_ready(READY_SECONDS)
        progress.begin(steering, planned.until)
        fleet = mesh.settings.fleet()
        endpoints = [e for e in fleet.endpoints.values() if e.model == planned.model]
        outcomes: list[Outcome] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(drive(_drive_of(mesh.url, planned), outcomes.append))
            watched = group.create_task(_follow(outcomes, planned, progress))
            await asyncio.sleep(planned.warm_up)
            before = await read_prefill(endpoints)
            await watched
            after = await read_prefill(endpoints)
    counted = [outcome for outcome in outcomes if outcome.sent >= planned.warm_up]
    sent = [(outcome.session, outcome.turn) for outcome in counted]
    return report.figures(
        counted,
        endpoints,
        before.share_until(after),
        seconds=planned.seconds,
        offered_load=offered_load(planned.arms, sent, planned.seconds),
    )


def _drive_of(url: str, planned: Schedule) -> Drive:
    """With a salt of its own: even engines that outlive a phase cannot answer it from another's cache."""
    return Drive(url, planned.model, planned.sessions, planned.until, planned.seed, secrets.token_hex(4))


async def _follow(outcomes: Sequence[Outcome], planned: Schedule, progress: DemoProgress) -> None:
    """Tell the progress until the phase is over."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < planned.until:
        progress.advance(passed, len(outcomes), sum(1 for o in outcomes if o.failure))
        await asyncio.sleep(_TICK_SECONDS)
    progress.advance(planned.until, len(outcomes), sum(1 for o in outcomes if o.failure))


async def _forget(redis_url: str | None, settings: Settings) -> None:
    """Remove what an earlier phase, or anything else, wrote of these models to someone's own Redis."""
    if redis_url is None:
        return  # every mesh brings an empty one
    store = RedisStore(redis_url)
    try:
        for model in settings.models:
            await store.forget(model.name)
    finally:
        await store.close()
