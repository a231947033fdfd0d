from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fleet.settings import AdmissionSettings, PickerSettings
from sim.fleets import fleet
from sim.policies.kvpilot import FACTORIES, PRIOR_ERROR, Kvpilot
from sim.simulation import Slowdown, simulate
from tests.sim.small import job, small_fleet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Rate
    from sim.policy import Job


def poisson(number: int, rate: float, seed: int = 1) -> list[Job]:
    """Prompts of their own, at so many a second."""
    draw = random.Random(seed)
    at = 0.0
    jobs = []
    for n in range(number):
        at += draw.expovariate(rate)
        jobs.append(job(n, at, draw.randint(200, 1500), draw.randint(1, 20)))
    return jobs


def priors(policy: Kvpilot, seed: int) -> list[Rate]:
    policy.start(fleet("uniform8").endpoints, [], seed)
    return [endpoint.prior for endpoint in policy._endpoints]


@pytest.mark.parametrize("name", FACTORIES)
def test_the_ledger_is_empty_at_the_end(name: str) -> None:
    policy = FACTORIES[name](0, 0.0)
    assert isinstance(policy, Kvpilot)
    jobs = [*poisson(100, rate=3.0), job(100, 1.0, 70_000)]  # the last one fits nowhere
    result = simulate(jobs, small_fleet(3), policy, seed=1, usage_share=0.5)
    assert result.summary()["rejected"] == 1
    assert policy.in_flight == 0
    picker = policy._picker
    assert picker is not None
    assert [state.ledger.in_flight for state in picker._endpoints.values()] == [0, 0, 0]


def test_requests_that_wait_longer_than_the_silence_are_still_believed_in_flight() -> None:
    jobs = [job(n, 0.0, 5000) for n in range(10)]
    seen: list[int] = []

    class Watched(Kvpilot):
        def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
            seen.append(self.in_flight)
            super().finish(job, now, cached_tokens)

    simulate(jobs, small_fleet(), Watched(PickerSettings(hold_seconds=0)), seed=1)
    assert seen == list(range(10, 0, -1))


def test_requests_wait_in_the_picker_where_all_queues_are_long_and_all_are_served() -> None:
    jobs = [job(n, 0.01 * n, 5000 if n % 2 else 500) for n in range(40)]
    policy = Kvpilot()
    held = simulate(jobs, small_fleet(2), policy, seed=1)
    sent = simulate(jobs, small_fleet(2), Kvpilot(PickerSettings(hold_seconds=0)), seed=1)
    assert len(held.outcomes) == len(sent.outcomes) == 40
    assert all(o.endpoint is not None for o in held.outcomes)
    assert policy.in_flight == len(policy._room) == 0
    means = [sum(o.ttft for o in result.outcomes) / 40 for result in (held, sent)]
    assert means[0] < 0.9 * means[1]


def test_a_conversation_comes_back_to_where_its_prefix_is() -> None:
    turns = [job(n, 20.0 * n, 640 * (n + 1), content="chat") for n in range(5)]
    result = simulate(turns, small_fleet(4), Kvpilot(), seed=3)
    assert len({o.endpoint for o in result.outcomes}) == 1
    assert all(o.cached_tokens > 0 for o in result.outcomes[1:])


def test_wrong_priors_are_drawn_by_the_seed_within_their_bounds() -> None:
    one, again, other = (priors(Kvpilot(), seed) for seed in (1, 1, 2))
    assert one == again != other
    shares = [rate.prefill / 20_480 for rate in one]
    assert all(1 - PRIOR_ERROR <= share <= 1 + PRIOR_ERROR for share in shares)
    assert max(shares) - min(shares) > PRIOR_ERROR / 2


def test_with_true_rates_it_starts_from_them_and_keeps_them() -> None:
    policy = FACTORIES["kvpilot_true_rates"](0, 0.0)
    assert isinstance(policy, Kvpilot)
    simulate(poisson(100, rate=2.0), small_fleet(2), policy, seed=1)
    assert policy._picker is not None
    states = policy._picker._endpoints.values()
    assert [(state.rates.prefill, state.rates.uncertainty) for state in states] == [(1000.0, 0.0)] * 2
    assert all(state.decoding.tpot != 0.1 for state in states)  # all else is learned


def test_without_true_rates_it_learns_them() -> None:
    policy = Kvpilot()
    simulate(poisson(300, rate=1.5), small_fleet(2), policy, seed=1)
    assert policy._picker is not None
    learned = policy._picker.rates(0.0)
    assert len(learned) == 2
    assert [rate.prefill for rate in learned.values()] == pytest.approx([1000.0] * 2, rel=0.1)


def test_an_answer_without_usage_tells_neither_its_hits_nor_its_length() -> None:
    policy = Kvpilot(prior_error=0.0)
    simulate(poisson(50, rate=1.0), small_fleet(), policy, seed=1, usage_share=0.0)
    assert policy._picker is not None
    (state,) = policy._picker._endpoints.values()
    assert state.decoding.tpot == 0.1


def test_one_that_is_told_of_a_slowdown_believes_it_at_once() -> None:
    policy = FACTORIES["kvpilot_told"](0, 0.0)
    assert isinstance(policy, Kvpilot)
    slowdown = Slowdown(at=20.0, endpoint=1, factor=0.25)
    simulate(poisson(50, rate=1.0), small_fleet(2), policy, seed=1, slowdowns=[slowdown])
    assert policy._picker is not None
    assert [state.rates.prefill for state in policy._picker._endpoints.values()] == [1000.0, 250.0]


def test_with_kv_events_its_belief_is_what_the_engines_hold() -> None:
    held: dict[int, set[int]] = {0: set(), 1: set()}

    class Watched(Kvpilot):
        def stored(self, index: int, blocks: Sequence[int], now: float) -> None:
            held[index].update(blocks)
            super().stored(index, blocks, now)

        def removed(self, index: int, blocks: Sequence[int], now: float) -> None:
            held[index].difference_update(blocks)
            super().removed(index, blocks, now)

    policy = Watched()
    # More than two caches hold; news of the last one's blocks comes with the end.
    jobs = [*poisson(80, rate=1.5), job(80, 80.0, 64)]
    simulate(jobs, small_fleet(2, kv_tokens=6400), policy, seed=1, kv_events=True)
    assert policy._picker is not None
    believed = []
    engines = []
    for index, address in enumerate(policy._addresses):
        for other in jobs:
            missing = (n for n, block in enumerate(other.blocks) if block not in held[index])
            engines.append(next(missing, len(other.blocks)))
            believed.append(policy._picker._index.match(other.blocks, [address]).get(address, 0))
    assert all(ours <= engine for ours, engine in zip(believed, engines, strict=True))
    same = [ours for ours, engine in zip(believed, engines, strict=True) if ours == engine]
    assert sum(ours > 0 for ours in same) >= 10  # of what the two hold in the end
    assert len(same) > 0.9 * len(engines)


def test_an_engine_tells_of_blocks_that_nobody_asked_for_here() -> None:
    policy = Kvpilot()
    simulate(poisson(5, rate=1.0), small_fleet(2), policy, seed=1)
    policy.stored(1, [7, 8], 10.0)
    assert policy._picker is not None
    assert policy._picker._index.match([7, 8, 9], policy._addresses) == {policy._addresses[1]: 2}


def test_a_large_fleet_is_used_when_so_much_arrives_at_once() -> None:
    policy = Kvpilot()
    result = simulate(poisson(500, rate=3000.0), fleet("mixed256"), policy, seed=1)
    assert len({o.endpoint for o in result.outcomes}) > 100
    assert (result.summary()["rejected"], policy.in_flight) == (0, 0)


def test_it_knows_the_kv_cache_in_the_workloads_own_blocks() -> None:
    policy = Kvpilot()
    simulate(poisson(5, rate=1.0), small_fleet(kv_tokens=6400), policy, seed=1)
    assert policy._picker is not None
    assert {recency.capacity for recency in policy._picker._index._recency.values()} == {100}


def test_told_of_classes_it_keeps_batch_out_of_the_way() -> None:
    draw = random.Random(1)
    arrivals = sorted(draw.uniform(0, 30) for _ in range(400))
    jobs = [
        replace(job(n, at, 3000, 20), workload_class="batch" if n % 2 else "interactive")
        for n, at in enumerate(arrivals)
    ]

    def interactive_ttft(policy: Kvpilot) -> float:
        result = simulate(jobs, fleet("mixed4"), policy, seed=1)
        return sum(o.ttft for one, o in zip(jobs, result.outcomes, strict=True) if one.id % 2 == 0)

    assert interactive_ttft(Kvpilot(classes=True)) < 0.95 * interactive_ttft(Kvpilot())


def test_with_admission_people_wait_less_under_overload_and_only_batch_is_refused() -> None:
    draw = random.Random(1)
    arrivals = sorted(draw.uniform(0, 20) for _ in range(600))
    jobs = [
        replace(job(n, at, 6000, 20), workload_class="batch" if n % 2 else "interactive")
        for n, at in enumerate(arrivals)
    ]
    worst = {}
    for shed in (False, True):
        policy = Kvpilot(admission=AdmissionSettings(shed=True) if shed else None)
        outcomes = simulate(jobs, fleet("uniform4"), policy, seed=1).outcomes
        people = [outcome for outcome in outcomes if outcome.job % 2 == 0]
        assert all(outcome.endpoint is not None for outcome in people)
        assert any(outcome.endpoint is None for outcome in outcomes) == shed
        worst[shed] = max(outcome.ttft for outcome in people)
        assert policy.in_flight == 0
    assert worst[True] < 0.5 * worst[False]
