from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sim.fleets import fleet
from sim.policies.kvpilot import FACTORIES, PRIOR_ERROR, Kvpilot
from sim.simulation import simulate
from tests.sim.small import job, small_fleet

if TYPE_CHECKING:
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
    policy = FACTORIES[name]()
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

    simulate(jobs, small_fleet(), Watched(), seed=1)
    assert seen == list(range(10, 0, -1))


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
    policy = FACTORIES["kvpilot_true_rates"]()
    assert isinstance(policy, Kvpilot)
    simulate(poisson(100, rate=2.0), small_fleet(2), policy, seed=1)
    assert policy._picker is not None
    kept = [state.rates.rate(0.0) for state in policy._picker._endpoints.values()]
    assert [(rate.prefill, rate.tpot) for rate in kept] == [(1000.0, 0.1)] * 2


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
    assert state.rates.tpot == 0.1


def test_it_knows_the_kv_cache_in_the_workloads_own_blocks() -> None:
    policy = Kvpilot()
    simulate(poisson(5, rate=1.0), small_fleet(kv_tokens=6400), policy, seed=1)
    assert policy._picker is not None
    assert set(policy._picker._index._capacity.values()) == {100}
