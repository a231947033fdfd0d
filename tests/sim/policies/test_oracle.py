from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fleet.model import Rate
from sim.fleets import SimFleet
from sim.policies.oracle import Oracle
from sim.policy import HearsOfSlowdowns, Job, SeesEngines
from sim.simulation import Slowdown, simulate
from sim.timing import ENGINES
from tests.sim.small import RATE, job, small_fleet


class Watched(Oracle):
    """Writes down the TTFT that it foresees."""

    def __init__(self) -> None:
        super().__init__()
        self.foreseen: dict[int, float] = {}

    def place(self, job: Job, now: float) -> int | None:
        request = self._request_of(job)
        options = [ahead.foresee(request, now) for ahead in self._ahead]
        chosen = super().place(job, now)
        assert chosen is not None
        assert options[chosen] == min(options)
        self.foreseen[job.id] = options[chosen].first_token_at - now
        return chosen


def crowd(number: int, seconds: float, seed: int = 1) -> list[Job]:
    """Jobs of mixed sizes that share prefixes and come within `seconds`."""
    draw = random.Random(seed)
    return [
        job(n, draw.uniform(0, seconds), draw.randint(1, 900), draw.randint(1, 60), content=draw.randrange(9))
        for n in range(number)
    ]


def unequal_fleet(*speeds: float, kv_tokens: int = 64_000, max_requests: int = 256) -> SimFleet:
    fleet = small_fleet(len(speeds), kv_tokens, max_requests)
    rates = [Rate(RATE.prefill * speed, RATE.tpot / speed) for speed in speeds]
    capacities = (replace(c, rate=rate) for c, rate in zip(fleet.capacities, rates, strict=True))
    return SimFleet(fleet.name, fleet.endpoints, tuple(capacities))


def test_it_sees_the_engines_and_hears_of_slowdowns() -> None:
    assert isinstance(Oracle(), SeesEngines)
    assert isinstance(Oracle(), HearsOfSlowdowns)


@pytest.mark.parametrize(
    ("engine", "kv_tokens", "error"),
    [("standard", 6400, 1e-9), ("variant", 64_000, 1e-9), ("variant", 6400, 1e-3)],  # some wait for KV space
)
def test_it_foresees_every_first_token_through_queues_evictions_and_noise(
    engine: str, kv_tokens: int, error: float
) -> None:
    policy = Watched()
    fleet = unequal_fleet(2, 1, 0.5, kv_tokens=kv_tokens)
    result = simulate(crowd(250, 10), fleet, policy, 3, engine=engine)
    assert max(o.ttft for o in result.outcomes) > 1, "or nobody queued"
    assert sum(o.cached_tokens for o in result.outcomes) > 0
    assert policy.foreseen == pytest.approx({o.job: o.ttft for o in result.outcomes}, rel=error)


def test_it_foresees_waits_for_batch_slots() -> None:
    policy = Watched()
    result = simulate(crowd(150, 40), unequal_fleet(2, 1, max_requests=3), policy, seed=0)
    assert policy.foreseen == pytest.approx({o.job: o.ttft for o in result.outcomes}, rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_slowdown_it_foresees_at_the_new_speed(engine: str) -> None:
    policy, jobs = Watched(), crowd(200, 40)
    slowdowns = [Slowdown(20.0, 0, 0.2), Slowdown(30.0, 0, 1.0)]
    result = simulate(jobs, unequal_fleet(2, 1), policy, 0, engine=engine, slowdowns=slowdowns)
    arrival = {j.id: j.arrival for j in jobs}

    def overtaken(id_: int, ttft: float) -> bool:
        """Whether the speed changed while it waited: that could not be foreseen."""
        begun = arrival[id_]
        return any(begun <= s.at <= begun + max(ttft, policy.foreseen[id_]) for s in slowdowns)

    settled = {o.job: o.ttft for o in result.outcomes if not overtaken(o.job, o.ttft)}
    assert len(settled) > 180
    assert {id_: policy.foreseen[id_] for id_ in settled} == pytest.approx(settled, rel=1e-9)


def test_a_held_prefix_beats_an_idle_endpoint_until_the_queue_costs_more_than_it_saves() -> None:
    warm, again = job(1, 0.0, 900, content="a"), job(5, 20.0, 900, content="a")
    for queued, expected in ((800, 0), (1000, 1)):
        # Both endpoints take one prompt; the holder, the first of two equals, the one of `queued` tokens.
        ahead = [job(2, 19.9999, queued), job(3, 19.9999, 50)]
        outcomes = simulate([warm, *ahead, again], small_fleet(2), Oracle(), seed=0).outcomes
        assert [o.endpoint for o in outcomes] == [0, 0, 1, expected]


def test_it_counts_on_what_a_queued_prompt_will_have_computed() -> None:
    jobs = [job(1, 0.0, 900, content="a"), job(2, 0.0, 300), job(3, 0.1, 900, content="a")]
    outcomes = simulate(jobs, small_fleet(2), Oracle(), seed=0).outcomes
    # Endpoint 1 is free at 0.308, but would compute all 900 tokens; endpoint 0 has all but 4 at 0.908.
    assert [o.endpoint for o in outcomes] == [0, 1, 0]
    assert outcomes[-1].ttft == pytest.approx(0.908 - 0.1 + 0.008 + 0.004)


def test_equal_endpoints_take_turns_by_their_streams() -> None:
    jobs = [job(1, 0.0, 100, output=1000), job(2, 0.5, 100, output=1000)]
    outcomes = simulate(jobs, small_fleet(2), Oracle(), seed=0).outcomes
    assert [o.endpoint for o in outcomes] == [0, 1]


def test_what_fits_nowhere_is_refused_and_what_fits_somewhere_goes_there() -> None:
    fleet = small_fleet(2, kv_tokens=6400)
    larger = replace(fleet.capacities[1], kv_blocks=400)
    fleet = SimFleet("s", fleet.endpoints, (fleet.capacities[0], larger))
    result = simulate([job(1, 0.0, 8000), job(2, 0.0, 80_000)], fleet, Oracle(), seed=0)
    assert [o.endpoint for o in result.outcomes] == [1, None]
