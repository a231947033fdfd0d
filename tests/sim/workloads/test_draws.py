from __future__ import annotations

from itertools import pairwise
from random import Random
from statistics import fmean, median

import pytest

from sim.policy import Job
from sim.workloads.draws import Lengths, Source, Step, in_order, log_normal, poisson


def job(arrival: float) -> Job:
    return Job(0, arrival, 10, 1, (), 128)


def test_a_source_repeats_itself_for_the_same_name_and_seed_only() -> None:
    first = Source("chat", 1).random.random()
    assert Source("chat", 1).random.random() == first
    assert first not in {Source("chat", 2).random.random(), Source("groups", 1).random.random()}


def test_a_source_never_gives_the_same_text_twice() -> None:
    source = Source("chat", 1)
    assert len({source.text() for _ in range(100)}) == 100


def test_lengths_have_the_mean_and_the_skew_that_they_state() -> None:
    random = Random(1)
    lengths = [Lengths(1000, 1.0, 10**6).draw(random) for _ in range(20_000)]
    assert fmean(lengths) == pytest.approx(1000, rel=0.05)
    assert median(lengths) == pytest.approx(607, rel=0.05)


def test_lengths_stay_between_one_token_and_the_most() -> None:
    random = Random(1)
    assert {Lengths(10, 3.0, 20).draw(random) for _ in range(2000)} >= {1, 20}
    assert all(1 <= Lengths(10, 3.0, 20).draw(random) <= 20 for _ in range(2000))


def test_lengths_without_spread_are_all_the_same() -> None:
    assert {Lengths(700, 0, 1000).draw(Random(seed)) for seed in range(20)} == {700}


def test_pauses_have_the_mean_that_they_state() -> None:
    random = Random(1)
    assert fmean(log_normal(random, 15, 0.8) for _ in range(20_000)) == pytest.approx(15, rel=0.05)


def test_arrivals_keep_each_steps_rate_within_its_time() -> None:
    times = list(poisson(Random(1), (Step(10, 400), Step(50, 100))))
    assert times == sorted(times)
    assert times[-1] < 500
    assert sum(at < 400 for at in times) == pytest.approx(4000, rel=0.05)
    assert sum(at >= 400 for at in times) == pytest.approx(5000, rel=0.05)


def test_arrivals_are_as_irregular_as_independent_ones() -> None:
    gaps = [b - a for a, b in pairwise(poisson(Random(1), (Step(20, 1000),)))]
    mean = fmean(gaps)
    assert fmean((gap - mean) ** 2 for gap in gaps) == pytest.approx(mean**2, rel=0.1)


def test_jobs_are_numbered_by_arrival_and_speedup_divides_all_times() -> None:
    ordered = in_order([job(6.0), job(0.0), job(3.0)], 2.0)
    assert [(each.id, each.arrival) for each in ordered] == [(0, 0.0), (1, 1.5), (2, 3.0)]
