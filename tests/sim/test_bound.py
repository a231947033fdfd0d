from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fleet.model import Rate
from sim.bound import ttft_floor
from sim.fleets import SimFleet
from sim.policies import make
from sim.simulation import simulate
from tests.sim.small import BLOCK, RATE, job, small_fleet


def test_a_prompt_alone_takes_its_overhead_and_its_tokens_at_the_fastest_rate() -> None:
    fleet = small_fleet(2)
    fast = replace(fleet.capacities[1], rate=Rate(2 * RATE.prefill, RATE.tpot))
    fleet = SimFleet("s", fleet.endpoints, (fleet.capacities[0], fast))
    floor = ttft_floor([job(1, 0.0, 100)], fleet)
    assert floor is not None
    assert [floor.mean, floor.p99] == pytest.approx([0.058, 0.058])


def test_the_fastest_that_can_hold_the_prompt_counts() -> None:
    fleet = small_fleet(2)
    fast = replace(fleet.capacities[1], rate=Rate(2 * RATE.prefill, RATE.tpot), kv_blocks=2)
    fleet = SimFleet("s", fleet.endpoints, (fleet.capacities[0], fast))
    floor = ttft_floor([job(1, 0.0, 100)], fleet)
    assert floor is not None
    assert floor.mean == pytest.approx(0.108)


def test_what_came_before_is_cached_save_the_last_token_and_what_comes_later_is_not() -> None:
    jobs = [job(2, 5.0, 2 * BLOCK, content="a"), job(1, 0.0, 2 * BLOCK, content="a")]
    floor = ttft_floor(jobs, small_fleet())
    assert floor is not None
    assert floor.mean == pytest.approx(0.008 + (2 * BLOCK + BLOCK) / 2 / 1000)
    assert floor.p99 == pytest.approx(0.008 + 2 * BLOCK / 1000)


def test_an_answer_that_the_next_prompt_repeats_is_cached_too() -> None:
    talk = [
        job(1, 0.0, 100, output=100, content="c", session="s"),
        job(2, 9.0, 640, content="c", session="s"),
    ]
    floor = ttft_floor(talk, small_fleet())
    assert floor is not None
    assert floor.p99 == pytest.approx(0.008 + (640 - 3 * BLOCK) / 1000)


def test_no_jobs_have_no_floor() -> None:
    assert ttft_floor([], small_fleet()) is None
    assert ttft_floor([job(1, 0.0, 70_000)], small_fleet()) is None


@pytest.mark.parametrize("name", ["oracle", "lmetric", "session_hash"])
def test_no_policy_goes_below(name: str) -> None:
    draw = random.Random(5)
    jobs = [
        job(n, draw.uniform(0, 90), draw.randint(1, 900), draw.randint(1, 9), content=draw.randrange(9))
        for n in range(200)
    ]
    floor = ttft_floor(jobs, small_fleet(3))
    figures = simulate(jobs, small_fleet(3), make(name), seed=0).summary()
    assert floor is not None
    assert figures["ttft_mean_s"] is not None
    assert figures["ttft_p99_s"] is not None
    assert floor.mean < figures["ttft_mean_s"]
    assert floor.p99 <= figures["ttft_p99_s"]
