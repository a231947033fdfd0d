"""A short soak; `bench/soak.py` runs the long one."""

from __future__ import annotations

import pytest

from soak import left_over, slope, soak

pytestmark = [pytest.mark.timeout(180)]

REQUESTS = 3000


async def test_thousands_of_requests_with_aborts_bad_bodies_and_dying_engines_leave_nothing_behind() -> None:
    result = await soak(REQUESTS, at_once=24, kills=2)
    assert result["passed"]["empty_ledger"], result
    assert result["passed"]["no_restart"], result
    answers, picker = result["answers"], result["picker"]
    assert sum(answers.values()) == REQUESTS
    assert answers.keys() <= {"200", "400", "left", "broken"}, (
        answers
    )  # engines that die break what they began
    assert answers["200"] > 0.9 * REQUESTS
    assert answers.get("broken", 0) <= 2 * 24
    assert answers["left"] > 0
    assert answers["400"] > 0
    assert picker["picks"] > 0.85 * REQUESTS
    assert picker["fallbacks"] <= 0.02 * picker["picks"]
    assert result["rss_mb"]["largest"] < result["rss_mb"]["middle"] + 20


def test_the_slope_is_what_memory_grows_by_per_100_000_requests() -> None:
    assert slope([(n, 80 + n / 1000) for n in range(0, 5000, 100)]) == pytest.approx(100)
    assert slope([(n, 80.0) for n in range(10)]) == 0
    assert slope([]) == slope([(5, 80.0)]) == 0


def test_whatever_is_left_counts_and_a_rounding_error_does_not() -> None:
    names = ("in_flight", "endpoint_in_flight", "endpoint_owed_tokens", "held")
    nothing = {f"kvpilot_picker_{name}": 0.0 for name in names}
    assert left_over(nothing | {"kvpilot_picker_endpoint_owed_tokens": 1e-9}) == 0
    for name in nothing:
        assert left_over(nothing | {name: 1.0}) == 1
