from __future__ import annotations

import pytest

from sim.policy import Job
from sim.workloads.load import Equals, busy_fraction, uncached_tokens


def job(arrival: float, blocks: tuple[int, ...], tokens: int, output: int = 1) -> Job:
    return Job(0, arrival, tokens, output, blocks, 100)


def test_counts_each_block_once_and_what_fills_no_block_every_time() -> None:
    jobs = [job(0, (1, 2), 250), job(1, (1, 2), 250), job(2, (1, 3), 200)]
    assert uncached_tokens(jobs) == 250 + 50 + 100


def test_is_the_time_that_prefill_takes_of_the_time_there_is() -> None:
    jobs = [job(at, (), 100) for at in range(1, 11)]
    # Ten times 0.1 s and 8 ms of overhead, in 10 s on each of two; the decode of 1 token takes no time.
    assert busy_fraction(jobs, Equals(2, prefill=1000, tpot=0.0)) == pytest.approx(1.08 / 20)


def test_decodes_slow_prefill_down() -> None:
    quiet = [job(at, (), 1000) for at in range(1, 11)]
    loud = [job(at, (), 1000, output=1000) for at in range(1, 11)]
    fleet = Equals(1, prefill=10_000, tpot=0.01)  # ten streams at once and more: each costs 1.2 %
    assert 1.12 < busy_fraction(loud, fleet) / busy_fraction(quiet, fleet) < 1.15


def test_a_load_that_no_fleet_could_serve_is_told_as_such() -> None:
    assert busy_fraction([job(0.1, (), 10**6, 10**6)] * 10) > 1
