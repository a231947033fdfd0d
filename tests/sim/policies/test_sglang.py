from __future__ import annotations

import pytest

from sim.policies.sglang import SglangCacheAware
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(in_flight: list[int], blocks: int = 10) -> SglangCacheAware:
    """Worker 0 was sent the first `blocks` blocks."""
    policy = busy(started(SglangCacheAware(), len(in_flight)), in_flight)
    policy.placed(prompt(blocks), 0, 0.0)
    return policy


@pytest.mark.parametrize(("blocks", "chosen"), [(3, {1, 2}), (4, {0})])
def test_a_match_counts_from_beyond_three_tenths_of_the_prompt(blocks: int, chosen: set[int]) -> None:
    assert decided(warm([60, 5, 5], blocks), prompt(10)) == chosen


@pytest.mark.parametrize(
    ("in_flight", "chosen"),
    [
        ([64, 0, 0], {0}),  # 64 apart is not more than 64
        ([65, 0, 0], {1, 2}),
        ([195, 130, 130], {0}),  # 1.5 times is not more than 1.5 times
        ([196, 130, 131], {1}),
        ([0, 65, 2], {0}),
    ],
)
def test_an_imbalanced_fleet_forgets_its_cache(in_flight: list[int], chosen: set[int]) -> None:
    assert decided(warm(in_flight), prompt(10)) == chosen


def test_the_longest_match_wins() -> None:
    policy = warm([9, 0, 0], blocks=9)
    policy.placed(prompt(5), 1, 0.0)
    assert decided(policy, prompt(10)) == {0}


def test_the_tree_learns_what_imbalance_decided() -> None:
    policy = warm([65, 0, 9])
    assert policy.place(prompt(10), 0.0) == 1
    busy(policy, [0, 9, 0])
    assert decided(policy, prompt(10)) == {0, 1}


def test_the_tree_holds_2_to_the_26_characters_a_worker() -> None:
    policy = started(SglangCacheAware(), 1)
    for first in range(0, 200_000, 20_000):
        policy.placed(prompt(20_000, first), 0, 0.0)
    assert policy._tree.size(0) == 2**24 // 100
