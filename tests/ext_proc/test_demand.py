from __future__ import annotations

import math
import random

import pytest

from ext_proc.demand import FRESH_SECONDS, MEMORY_SECONDS, Demand


def steady(seconds: float, start: float = 1000.0) -> Demand:
    """Two placements a second, of 1,000 tokens that take 0.2 s."""
    demand = Demand()
    for n in range(int(2 * seconds)):
        demand.placed(1_000, 0.2, start + n / 2)
    demand.refresh(start + seconds)
    return demand


def test_nothing_was_placed_so_far() -> None:
    demand = Demand()
    demand.refresh(5.0)
    assert (demand.arrivals, demand.service, demand.work) == (0, 0, 0)


@pytest.mark.parametrize("seconds", [5, 20, 60, 300])
def test_tells_the_rates_of_a_steady_load_whether_it_began_lately_or_long_ago(seconds: float) -> None:
    demand = steady(seconds)
    assert demand.arrivals == pytest.approx(2, rel=0.06)
    assert demand.work == pytest.approx(2_000, rel=0.06)
    assert demand.service == pytest.approx(0.2)


def test_tells_the_rates_of_a_random_load_within_its_noise() -> None:
    draw, demand, now, rates = random.Random(1), Demand(), 0.0, []
    while now < 1_000:
        now += draw.expovariate(5)
        demand.placed(draw.uniform(0, 2_000), draw.uniform(0, 0.2), now)
        demand.refresh(now)
        if now > 100:
            rates.append((demand.arrivals, demand.work, demand.service))
    means = [sum(each) / len(rates) for each in zip(*rates, strict=True)]
    assert means == pytest.approx([5, 5_000, 0.1], rel=0.06)
    assert max(arrivals for arrivals, _, _ in rates) < 10


def test_the_first_placement_alone_makes_no_flood() -> None:
    demand = Demand()
    demand.placed(1_000, 0.2, 50.0)
    demand.refresh(50.0)
    assert demand.arrivals <= 1.1 / FRESH_SECONDS


def test_fades_when_nothing_is_placed_any_more() -> None:
    demand = steady(200)
    demand.refresh(1200.0 + 2 * MEMORY_SECONDS)
    assert demand.arrivals == pytest.approx(2 * math.exp(-2), rel=0.06)
    assert demand.work == pytest.approx(2_000 * math.exp(-2), rel=0.06)
    assert demand.service == pytest.approx(0.2)  # those that came were as long as they were
    demand.refresh(5_000.0)
    assert demand.arrivals < 1e-9
    assert demand.service == 0


def test_follows_a_change_of_load_within_its_memory() -> None:
    demand = steady(200)
    for n in range(int(10 * 2 * MEMORY_SECONDS)):
        demand.placed(100, 0.01, 1200.0 + n / 10)
    demand.refresh(1200.0 + 2 * MEMORY_SECONDS)
    assert demand.arrivals == pytest.approx(10, rel=0.15)
    assert demand.service == pytest.approx(0.01, rel=1)


def test_a_placement_counts_at_once_and_silence_once_a_second() -> None:
    demand = steady(60)
    before = demand.arrivals
    demand.refresh(1060.0 + 0.9 * FRESH_SECONDS)
    assert demand.arrivals == before
    demand.placed(1_000, 0.2, 1060.95)
    demand.refresh(1060.95)
    assert demand.arrivals != before


def test_a_clock_that_stands_still_or_goes_back_loses_nothing() -> None:
    demand = steady(60)
    for _ in range(60):
        demand.placed(1_000, 0.2, 1000.0)
    demand.refresh(1060.0)
    assert demand.arrivals == pytest.approx(4.2, rel=0.15)
