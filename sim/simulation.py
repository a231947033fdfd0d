"""A fleet of engine models, a workload and one policy, in virtual time.

`simulate` goes from event to event: arrivals, what engines do, scrapes, and news, which reaches the policy
as late as it says. Its own placements are known to a policy at once. Deterministic for a seed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from fleet.errors import ConfigError
from fleet.model import Load
from sim.answers import answer_names
from sim.capacity import TOKENS_PER_BLOCK
from sim.engine import Engine, Request, RequestTooLargeError
from sim.policy import (
    END_NEWS_SECONDS,
    KV_NEWS_SECONDS,
    HearsOfCaches,
    HearsOfSlowdowns,
    HoldsRequests,
    SeesEngines,
    Verdict,
)
from sim.result import Outcome, Result
from sim.timing import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.engine import Event
    from sim.fleets import SimFleet
    from sim.kvcache import CacheChange
    from sim.policy import Job, Policy


@dataclass(frozen=True, slots=True)
class Slowdown:
    """From `at` on, an endpoint prefills and decodes at `factor` of its full rate: a throttled GPU."""

    at: float  # seconds of virtual time
    endpoint: int  # its index in the fleet
    factor: float  # over 0; 1 is full speed again


def simulate(
    jobs: Sequence[Job],
    fleet: SimFleet,
    policy: Policy,
    seed: int,
    *,
    usage_share: float = 1.0,
    engine: str = "standard",
    slowdowns: Sequence[Slowdown] = (),
    kv_events: bool = False,
) -> Result:
    """Play `jobs` on `fleet` as `policy` places them. `usage_share`, 0..1, of the answers tell their usage.

    `engine` is a name in `sim.timing.ENGINES`. A policy that is `HearsOfSlowdowns` is told of them at once;
    with `kv_events`, one that is `HearsOfCaches` is told what engines store and evict.
    All jobs must have blocks of one size; raises ValueError otherwise, and ConfigError for an engine that
    does not exist or a slowdown that makes no sense.
    """
    for slowdown in slowdowns:
        _check(slowdown, len(fleet.endpoints))
    engines = _engines(fleet, _block_tokens(jobs), engine, seed)
    policy.start(fleet.endpoints, [capacity.kv_tokens for capacity in fleet.capacities], seed)
    simulation = _Simulation(jobs, engines, policy, seed, usage_share, slowdowns)
    if kv_events and isinstance(policy, HearsOfCaches):
        simulation.tell_of_caches(policy)
    return simulation.run()


@dataclass(slots=True)
class _Running:
    """A job that was placed and is not over, as the simulation follows it."""

    job: Job
    endpoint: int
    tells_usage: bool
    first_token: float = math.nan
    told: bool = False  # the policy has heard of the first token


class _Simulation:
    def __init__(
        self,
        jobs: Sequence[Job],
        engines: Sequence[Engine],
        policy: Policy,
        seed: int,
        usage_share: float,
        slowdowns: Sequence[Slowdown],
    ) -> None:
        self._policy = policy
        self._engines = engines
        self._armed = [math.inf] * len(self._engines)  # when each engine's next event is queued for
        self._names = answer_names(jobs)
        self._usage_share = usage_share
        self._random = random.Random(seed)
        self._running: dict[int, _Running] = {}
        self._held: dict[int, bool] = {}  # jobs that wait in the policy: whether they will tell usage
        self._outcomes: dict[int, Outcome] = {}
        self._arrivals_left = len(jobs)
        self._order = count()  # breaks ties in the heap: first queued, first happens
        self._end_delay = min(policy.feedback_delay, END_NEWS_SECONDS)
        self._first_arrival = min((job.arrival for job in jobs), default=0.0)
        self._last_end = self._first_arrival
        self._heap: list[tuple[float, int, Callable[..., None], object]] = []
        if jobs and policy.scrape_interval > 0:
            self._queue(0.0, self._scrape, None)
        for slowdown in slowdowns:
            self._queue(slowdown.at, self._slow, slowdown)
        for job in jobs:
            self._queue(job.arrival, self._arrive, job)
        if isinstance(policy, SeesEngines):
            policy.see(engines, self._request)

    def tell_of_caches(self, policy: HearsOfCaches) -> None:
        """Every change of an engine's cache becomes news."""

        def listen(index: int, change: CacheChange, at: float) -> None:
            self._queue(at + KV_NEWS_SECONDS, hear, (index, change))

        def hear(now: float, news: tuple[int, CacheChange]) -> None:
            index, change = news
            if change.removed:
                policy.removed(index, change.removed, now)
            if change.stored:
                policy.stored(index, change.stored, now)

        for index, engine in enumerate(self._engines):
            engine.listen(partial(listen, index))

    def run(self) -> Result:
        """Until nothing is left to happen."""
        while self._heap:
            now, _, happen, subject = heappop(self._heap)
            happen(now, subject)
        span = self._last_end - self._first_arrival
        busy = [engine.gauges(self._last_end).prefill_busy_seconds for engine in self._engines]
        return Result(
            tuple(self._outcomes[id_] for id_ in sorted(self._outcomes)),
            tuple(seconds / span if span else 0.0 for seconds in busy),
        )

    def _queue(self, at: float, happen: Callable[..., None], subject: object) -> None:
        heappush(self._heap, (at, next(self._order), happen, subject))

    def _arrive(self, now: float, job: Job) -> None:
        self._arrivals_left -= 1
        tells_usage = self._random.random() < self._usage_share  # drawn for all: every policy sees the same
        index = self._policy.place(job, now)
        if index is Verdict.HELD:
            if not self._held:
                self._queue_dispatch(now)
            self._held[job.id] = tells_usage
        else:
            self._send(now, job, index, tells_usage)

    def _queue_dispatch(self, now: float) -> None:
        if not isinstance(self._policy, HoldsRequests):
            raise TypeError("a policy that holds requests must be able to dispatch them")
        self._queue(now + self._policy.dispatch_interval, self._dispatch, self._policy)

    def _dispatch(self, now: float, policy: HoldsRequests) -> None:
        for job, index in policy.dispatch(now):
            self._send(now, job, index, self._held.pop(job.id))
        if self._held:
            self._queue_dispatch(now)

    def _send(self, now: float, job: Job, index: int | None, tells_usage: bool) -> None:
        if index is None:
            self._outcomes[job.id] = Outcome(job.id, None)
            return
        running = _Running(job, index, tells_usage)
        try:
            self._engines[index].submit(self._request(job), now)
        except RequestTooLargeError:  # the engine's answer is an error: news like any end
            self._outcomes[job.id] = Outcome(job.id, None)
            self._queue(now + self._end_delay, self._hear_end, (running, None))
            return
        self._running[job.id] = running
        self._arm(index)

    def _request(self, job: Job) -> Request:
        names = (*job.blocks[: job.prompt_tokens // job.block_tokens], *self._names.get(job.id, ()))
        return Request(job.id, job.prompt_tokens, job.output_tokens, names)

    def _arm(self, index: int) -> None:
        """Queue the engine's next event, where that changed; what was queued before is then stale."""
        at = self._engines[index].next_event_at()
        if at != self._armed[index]:
            self._armed[index] = at
            if at < math.inf:
                self._queue(at, self._wake, index)

    def _wake(self, now: float, index: int) -> None:
        if now != self._armed[index]:
            return
        for event in self._engines[index].advance(now):
            if event.finished:
                self._end(event)
            else:
                self._begin(event)
        self._arm(index)

    def _begin(self, event: Event) -> None:
        running = self._running[event.id]
        running.first_token = event.at
        self._queue(event.at + self._policy.feedback_delay, self._hear_first_token, running)

    def _end(self, event: Event) -> None:
        running = self._running.pop(event.id)
        job = running.job
        self._last_end = max(self._last_end, event.at)
        self._outcomes[job.id] = Outcome(
            job.id,
            running.endpoint,
            ttft=running.first_token - job.arrival,
            e2e=event.at - job.arrival,
            tpot=(event.at - running.first_token) / (job.output_tokens - 1)
            if job.output_tokens > 1
            else None,
            prompt_tokens=job.prompt_tokens,
            cached_tokens=event.cached_tokens,
        )
        usage = event.cached_tokens if running.tells_usage else None
        self._queue(event.at + self._end_delay, self._hear_end, (running, usage))

    def _hear_first_token(self, now: float, running: _Running) -> None:
        if not running.told:
            running.told = True
            self._policy.first_token(running.job, now, running.first_token)

    def _hear_end(self, now: float, news: tuple[_Running, int | None]) -> None:
        running, cached_tokens = news
        if not math.isnan(running.first_token):
            self._hear_first_token(now, running)  # an entry of the log tells all that it knows
        self._policy.finish(running.job, now, cached_tokens)

    def _slow(self, now: float, slowdown: Slowdown) -> None:
        if not (self._arrivals_left or self._running or self._held):
            return  # nobody would notice
        self._engines[slowdown.endpoint].set_speed(slowdown.factor, now)
        self._arm(slowdown.endpoint)
        if isinstance(self._policy, HearsOfSlowdowns):
            self._policy.slowed(slowdown.endpoint, slowdown.factor, now)

    def _scrape(self, now: float, _: None) -> None:
        for index, engine in enumerate(self._engines):
            self._policy.scrape(index, _load(engine, now), now)
        if self._arrivals_left or self._running or self._held:
            self._queue(now + self._policy.scrape_interval, self._scrape, None)


def _load(engine: Engine, now: float) -> Load:
    gauges = engine.gauges(now)
    return Load(
        at=now,
        kv_blocks_used=gauges.blocks_used,
        kv_blocks_max=gauges.blocks_max,
        tokens_per_block=gauges.tokens_per_block,
        running=gauges.scheduled,
        waiting=gauges.waiting,
        max_requests=gauges.max_requests,
    )


def _engines(fleet: SimFleet, block_tokens: int, kind: str, seed: int) -> list[Engine]:
    return [
        Engine(capacity.in_blocks_of(block_tokens), timing(kind, seed, index))
        for index, capacity in enumerate(fleet.capacities)
    ]


def _check(slowdown: Slowdown, endpoints: int) -> None:
    if not 0 <= slowdown.at < math.inf:
        raise ConfigError("slowdown", "at", slowdown.at, "expected seconds from the start, at least 0")
    if not 0 <= slowdown.endpoint < endpoints:
        raise ConfigError("slowdown", "endpoint", slowdown.endpoint, f"expected 0 to {endpoints - 1}")
    if not 0 < slowdown.factor < math.inf:
        raise ConfigError("slowdown", "factor", slowdown.factor, "expected a number over 0")


def _block_tokens(jobs: Sequence[Job]) -> int:
    sizes = {job.block_tokens for job in jobs}
    if len(sizes) > 1:
        raise ValueError(f"jobs with blocks of {sorted(sizes)} tokens cannot share an engine's cache")
    return sizes.pop() if sizes else TOKENS_PER_BLOCK
