from __future__ import annotations

import pytest

from ext_proc.replication.clock import SAMPLES, StoreClock


def test_believes_the_answer_that_came_fastest() -> None:
    clock = StoreClock()
    assert clock.offset is None
    clock.answered(10.0, 10.5, 110.4)  # it took half a second: between 99.9 and 100.4
    clock.answered(20.0, 20.002, 120.001)
    clock.answered(30.0, 30.3, 130.05)
    assert clock.offset == pytest.approx(100.0)


def test_follows_a_clock_that_was_set_at_once() -> None:
    clock = StoreClock()
    for n in range(SAMPLES):
        clock.answered(n, n + 0.001, 100.0005 + n)
    clock.answered(20.0, 20.002, 119.001)  # a second earlier than it should be
    assert clock.offset == pytest.approx(99.0)


def test_forgets_old_answers_so_that_drift_does_not_add_up() -> None:
    clock = StoreClock()
    drift = 1e-4
    clock.answered(0.0, 0.0001, 100.00005)
    for n in range(1, 3 * SAMPLES):
        clock.answered(n, n + 0.002, 100.001 + n * (1 + drift))
    assert clock.offset == pytest.approx(100.0 + 2.5 * SAMPLES * drift, abs=0.7 * SAMPLES * drift)
