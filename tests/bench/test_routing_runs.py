from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from routing_runs import (
    BURST_PREFIX,
    burst_figures,
    busy_while_arriving,
    lengthened,
    siblings,
    slow_at,
    window,
)
from sim import fleets, policies
from sim.result import Outcome, Result
from sim.simulation import simulate
from sim.workloads.draws import Source, Step, in_order
from sim.workloads.groups import Groups, generate

if TYPE_CHECKING:
    from sim.policy import Job


def few(seconds: float = 3.0) -> list[Job]:
    return in_order(generate(Groups(groups=3, steps=(Step(10, seconds),)), Source("few", 1)), 1.0)


def test_a_lengthened_workload_repeats_itself_with_other_texts() -> None:
    jobs = few()
    longer = lengthened(jobs, 3 * jobs[-1].arrival)
    assert len(longer) == 3 * len(jobs)
    assert [job.id for job in longer] == list(range(len(longer)))
    arrivals = [job.arrival for job in longer]
    assert arrivals == sorted(arrivals)
    again = longer[len(jobs)]
    assert again.arrival == pytest.approx(jobs[0].arrival + jobs[-1].arrival)
    assert not set(again.blocks) & {block for job in jobs for block in job.blocks}
    shared = set(jobs[0].blocks) & set(jobs[1].blocks)
    assert len(set(again.blocks) & set(longer[len(jobs) + 1].blocks)) == len(shared)


def test_the_window_after_a_slowdown_ends_before_the_workload_does() -> None:
    jobs = lengthened(few(), 600.0)
    assert slow_at(jobs) + 60 + 300 <= jobs[-1].arrival
    double = lengthened(few(), 1200.0)
    assert slow_at(double) == double[-1].arrival / 2


def test_a_window_holds_the_jobs_that_arrived_in_it() -> None:
    jobs = few()
    result = Result(tuple(Outcome(job.id, 0, ttft=100.0) for job in jobs), (1.0,))
    inside = window(jobs, result, 1.0, 2.0).outcomes
    assert [outcome.job for outcome in inside] == [job.id for job in jobs if 1.0 <= job.arrival < 2.0]
    assert inside


def test_busy_time_after_the_last_arrival_does_not_count() -> None:
    jobs = few()[:3]
    first, last = jobs[0].arrival, jobs[-1].arrival
    end = last + (last - first)  # twice the time of the arrivals
    in_time = [Outcome(job.id, 0, ttft=0.0, e2e=0.0, prompt_tokens=300) for job in jobs[:2]]
    late = Outcome(jobs[2].id, 0, ttft=end - last, e2e=end - last, prompt_tokens=600)
    result = Result((*in_time, late), (0.6, 0.0))
    # Endpoint 0 prefills 60 % of all the time, half of that while requests arrive; endpoint 1 never.
    assert busy_while_arriving(jobs, result) == pytest.approx(0.6 * 2 * 0.5 / 2)


def test_siblings_share_a_prefix_and_nothing_else() -> None:
    burst = siblings(7, 5.0)
    assert [job.id for job in burst] == list(range(7, 207))
    assert {job.arrival for job in burst} == {5.0}
    whole = BURST_PREFIX // burst[0].block_tokens
    assert len({tuple(job.blocks[:whole]) for job in burst}) == 1
    assert not {block for job in few() for block in job.blocks} & set(burst[0].blocks)


def test_a_burst_that_goes_in_turn_is_unfair_to_slow_endpoints_and_prefilled_everywhere() -> None:
    fleet = fleets.fleet("mixed8")
    burst = siblings(0, 0.0)
    result = simulate(burst, fleet, policies.make("round_robin"), 1)
    figures = burst_figures(fleet, result, {job.id for job in burst})
    slowest = min(capacity.rate.prefill for capacity in fleet.capacities)
    share = slowest / sum(capacity.rate.prefill for capacity in fleet.capacities)
    assert figures["most_over_fair"] == pytest.approx(1 / 8 / share)
    assert figures["prefilled_on"] == 8
    assert figures["rejected"] == 0
    last = max(outcome.e2e for outcome in result.outcomes)
    assert figures["last_token_s"] == last
