from __future__ import annotations

import pytest

from sim.policies.lmetric import LMetric
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(in_flight: list[int], prefill: list[int] | None = None) -> LMetric:
    """Endpoint 0 was sent the first three of the prompt's four blocks."""
    policy = busy(started(LMetric(), len(in_flight)), in_flight, prefill)
    policy.placed(prompt(3), 0, 0.0)
    return policy


def test_a_match_wins_while_the_product_is_smaller() -> None:
    assert decided(warm([2, 0]), prompt(4)) == {0}  # 100 * 3 against 400 * 1


def test_equal_products_go_to_the_shorter_queue() -> None:
    assert decided(warm([3, 0]), prompt(4)) == {1}  # 100 * 4 against 400 * 1


@pytest.mark.parametrize(("owed", "chosen"), [(33, {0}), (34, {1})])
def test_prefill_in_flight_counts_with_the_prompts_own(owed: int, chosen: set[int]) -> None:
    assert decided(warm([2, 0], [owed, 0]), prompt(4)) == chosen  # (owed + 100) * 3 against 400


def test_equal_endpoints_are_drawn() -> None:
    assert decided(started(LMetric(), 3), prompt(4)) == {0, 1, 2}


def test_belief_is_bounded_by_the_kv_capacity() -> None:
    policy = started(LMetric(), 2, kv_tokens=400)
    policy.placed(prompt(4), 0, 0.0)
    policy.placed(prompt(4, first=50), 0, 0.0)
    busy(policy, [0, 1])
    assert policy.choose(prompt(4), 0.0).prefill == 400
