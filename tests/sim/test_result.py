from __future__ import annotations

import pytest

from sim.result import Outcome, Result, average


def test_a_summary_is_of_those_served_and_counts_the_others() -> None:
    served = [Outcome(n, 0, n / 100, n / 10, None if n == 1 else 0.02, 100, n) for n in range(1, 101)]
    figures = Result((*served, Outcome(101, None)), (0.5,)).summary()
    assert figures == {
        "ttft_mean_s": pytest.approx(0.505),
        "ttft_p50_s": 0.5,
        "ttft_p90_s": 0.9,
        "ttft_p99_s": 0.99,
        "e2e_mean_s": pytest.approx(5.05),
        "e2e_p99_s": 9.9,
        "tpot_mean_s": pytest.approx(0.02),
        "token_hit_ratio": pytest.approx(0.505),
        "rejected": 1,
    }


def test_where_nobody_was_served_nothing_is_claimed() -> None:
    figures = Result((Outcome(1, None),), (0.0,)).summary()
    assert figures.pop("rejected") == 1
    assert set(figures.values()) == {None}


def test_an_average_is_over_the_runs_that_measured_the_figure() -> None:
    assert average([{"a": 1.0, "b": None}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    assert average([{"a": None}]) == {"a": None}
