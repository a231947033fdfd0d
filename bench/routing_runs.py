"""One run of the benchmark of routing policies: its jobs, the simulation, and the figures kept of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from fleet.quantiles import nearest_rank
from routing_plan import BURST, SLOWDOWN, TRACE, Run
from sim import fleets, policies, workloads
from sim.result import Result
from sim.simulation import Slowdown, simulate
from sim.workloads.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.fleets import SimFleet
    from sim.policy import Job

Figures = Mapping[str, float | None]
"""Figures by name, times in seconds; None where nothing was measured."""

LEARNED = 500
"""Requests after which rates count as learned."""

SLOW_ENDPOINT = 0  # of the fastest generation, where there are several
SLOW_FACTOR = 1 / 3
SLOW_SETTLES = 60.0  # seconds that a router has to notice
SLOW_WINDOW = 300.0  # seconds that are then measured
SLOW_LENGTH = 600.0  # seconds: shorter workloads go on, so that rates are learned before and measured after

BURST_REQUESTS = 200
BURST_PREFIX = 8192  # tokens, of a text that nobody asked about before
BURST_QUESTION = 64  # tokens, another text each
BURST_OUTPUT = 128  # tokens
BURST_AFTER = 60.0  # seconds after the last arrival of the warm-up: the fleet is warm and idle
_BURST_TEXT = 1 << 40  # texts from this number on occur in no workload


def execute(run: Run, trace: str | None) -> Figures:
    """Simulate a run; the conversation trace lies at `trace`."""
    began = time.perf_counter()
    figures = _EXPERIMENTS.get(run.experiment, _case)(run, trace)
    return {**figures, "wall_s": round(time.perf_counter() - began, 2)}


def _case(run: Run, trace: str | None) -> Figures:
    jobs = _jobs(run.workload, trace, run.seed, run.speedup)
    result = _simulate(run, jobs)
    later = Result(tuple(o for o in result.outcomes if o.job >= LEARNED), result.busy)
    return {
        **result.summary(),
        "after_500_ttft_mean_s": later.summary()["ttft_mean_s"],
        "busy_arriving": busy_while_arriving(jobs, result),
    }


def _slowdown(run: Run, trace: str | None) -> Figures:
    jobs = _long_jobs(run.workload, trace, run.seed, run.speedup)
    at = slow_at(jobs)
    result = _simulate(run, jobs, (Slowdown(at, SLOW_ENDPOINT, SLOW_FACTOR),))
    begin = at + SLOW_SETTLES
    figures = window(jobs, result, begin, begin + SLOW_WINDOW).summary()
    kept = ("ttft_mean_s", "ttft_p90_s", "ttft_p99_s", "rejected")
    before = window(jobs, result, at - SLOW_SETTLES, at).summary()
    return {**{name: figures[name] for name in kept}, "before_ttft_mean_s": before["ttft_mean_s"]}


def _burst(run: Run, trace: str | None) -> Figures:
    warm = _jobs(run.workload, trace, run.seed, run.speedup)
    burst = siblings(len(warm), warm[-1].arrival + BURST_AFTER)
    fleet = fleets.fleet(run.fleet)
    result = _simulate(run, [*warm, *burst])
    return burst_figures(fleet, result, {job.id for job in burst})


_EXPERIMENTS: dict[str, Callable[[Run, str | None], Figures]] = {SLOWDOWN: _slowdown, BURST: _burst}


def _simulate(run: Run, jobs: Sequence[Job], slowdowns: Sequence[Slowdown] = ()) -> Result:
    fleet, policy = fleets.fleet(run.fleet), policies.make(run.policy)
    return simulate(jobs, fleet, policy, run.seed, engine=run.engine, slowdowns=slowdowns)


@lru_cache(maxsize=1)  # runs on the same jobs follow one another
def _jobs(workload: str, trace: str | None, seed: int, speedup: float) -> list[Job]:
    return workloads.build(os.fspath(trace) if workload == TRACE and trace else workload, seed, speedup)


@lru_cache(maxsize=1)
def _long_jobs(workload: str, trace: str | None, seed: int, speedup: float) -> list[Job]:
    return lengthened(_jobs(workload, trace, seed, speedup), SLOW_LENGTH)


def lengthened(jobs: Sequence[Job], seconds: float) -> list[Job]:
    """The jobs, again with other texts and sessions until they have come for so many seconds."""
    length = jobs[-1].arrival
    longer = list(jobs)
    part = 0
    while longer[-1].arrival < seconds:
        part += 1
        longer += [_again(job, part, len(jobs), length) for job in jobs]
    return longer


def _again(job: Job, part: int, count: int, length: float) -> Job:
    return replace(
        job,
        id=job.id + part * count,
        arrival=job.arrival + part * length,
        blocks=tuple(xxh3_64_intdigest(block.to_bytes(8, "little"), part) for block in job.blocks),
        session=f"{part} {job.session}" if job.session else "",
    )


def slow_at(jobs: Sequence[Job]) -> float:
    """When the endpoint slows: half way, or as late as still lets the whole window be measured."""
    last = jobs[-1].arrival
    return min(last / 2, last - SLOW_SETTLES - SLOW_WINDOW)


def window(jobs: Sequence[Job], result: Result, begin: float, end: float) -> Result:
    """The outcomes of the jobs that arrived from `begin` to before `end`."""
    inside = {job.id for job in jobs if begin <= job.arrival < end}
    return Result(tuple(o for o in result.outcomes if o.job in inside), result.busy)


def busy_while_arriving(jobs: Sequence[Job], result: Result) -> float:
    """The average endpoint's share of time spent on prefill from the first arrival to the last, 0..1.

    Estimated: of each endpoint's prefill, the share of the tokens whose first answer came before the last
    arrival.
    """
    arrivals = {job.id: job.arrival for job in jobs}
    first, last = jobs[0].arrival, jobs[-1].arrival
    computed: Counter[int] = Counter()
    in_time: Counter[int] = Counter()
    end = last
    for o in result.outcomes:
        if o.endpoint is None:
            continue
        end = max(end, arrivals[o.job] + o.e2e)
        computed[o.endpoint] += o.prompt_tokens - o.cached_tokens
        if arrivals[o.job] + o.ttft <= last:
            in_time[o.endpoint] += o.prompt_tokens - o.cached_tokens
    if last <= first:
        return 0.0
    span = (end - first) / (last - first)  # `busy` is of the whole run, its tail included
    shares = [busy * in_time[n] / computed[n] for n, busy in enumerate(result.busy) if computed[n]]
    return span * sum(shares) / len(result.busy)


def siblings(first_id: int, at: float) -> list[Job]:
    """A burst: requests at the same moment that share one long prefix and ask a short question each."""
    shared = Prompt().then(_BURST_TEXT, BURST_PREFIX)
    prompts = [shared.then(_BURST_TEXT + 1 + n, BURST_QUESTION) for n in range(BURST_REQUESTS)]
    jobs = [prompt.job(at, BURST_OUTPUT, BURST_OUTPUT) for prompt in prompts]
    return [replace(job, id=first_id + n) for n, job in enumerate(jobs)]


def burst_figures(fleet: SimFleet, result: Result, burst: set[int]) -> Figures:
    """How a burst was spread and answered.

    `most_over_fair`: the largest ratio, among endpoints, of requests to what the endpoint's part of the
    fleet's prefill rate would have been. `prefilled_on`: endpoints that computed the prefix.
    """
    outcomes = tuple(o for o in result.outcomes if o.job in burst)
    placed = Counter(o.endpoint for o in outcomes if o.endpoint is not None)
    rates = [capacity.rate.prefill for capacity in fleet.capacities]
    over_fair = [placed[n] / len(burst) / (rate / sum(rates)) for n, rate in enumerate(rates)]
    prefilled = {o.endpoint for o in outcomes if o.endpoint is not None and o.cached_tokens < BURST_PREFIX}
    ttft = sorted(o.ttft for o in outcomes if o.endpoint is not None)
    summary = Result(outcomes, result.busy).summary()
    return {
        "most_over_fair": max(over_fair),
        "prefilled_on": len(prefilled),
        "ttft_mean_s": summary["ttft_mean_s"],
        "ttft_p90_s": nearest_rank(ttft, 0.9) if ttft else None,
        "last_token_s": max((o.e2e for o in outcomes if o.endpoint is not None), default=None),
        "rejected": summary["rejected"],
    }
