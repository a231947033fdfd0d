from __future__ import annotations

import pytest

from sim.policies.aibrix import AibrixPrefixCache, PrefixTable
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(running: list[int], held: dict[int, int]) -> AibrixPrefixCache:
    """Each pod of `held` was sent so many of the prompt's leading blocks."""
    policy = busy(started(AibrixPrefixCache(), len(running)), running)
    for pod, blocks in held.items():
        policy.placed(prompt(blocks), pod, 0.0)
    return policy


@pytest.mark.parametrize(
    ("running", "chosen"),
    [
        ([8, 8, 0], {0}),  # 8 apart is balanced; mean 5.3 + sigma 3.8 = 9.1
        ([9, 9, 0], {2}),
    ],
)
def test_beyond_8_apart_the_least_loaded_pod_wins(running: list[int], chosen: set[int]) -> None:
    assert decided(warm(running, {0: 10}), prompt(10)) == chosen


def test_the_best_match_wins_among_pods_within_one_sigma() -> None:
    assert decided(warm([1, 1, 0, 0], {0: 10, 1: 5}), prompt(10)) == {0}


def test_a_pod_beyond_one_sigma_gives_way_to_the_next_best_match() -> None:
    # Mean 1, sigma 1.73: pod 0 with 4 is out.
    assert decided(warm([4, 0, 0, 0], {0: 10, 1: 1}), prompt(10)) == {1}


def test_exactly_one_sigma_is_within() -> None:
    assert decided(warm([2, 0], {0: 1}), prompt(10)) == {0}  # mean 1, sigma 1


def test_sigma_is_that_of_the_population() -> None:
    # Mean 3.75, sigma 3.77 (a sample's were 4.35): 8 running are out, 7 are not.
    assert decided(warm([8, 7, 0, 0], {0: 10, 1: 5}), prompt(10)) == {1}


def test_without_a_warm_pod_within_the_bound_the_least_loaded_wins() -> None:
    assert decided(warm([4, 1, 0, 0], {0: 10}), prompt(10)) == {2, 3}


def test_equal_matches_go_by_queue_then_by_chance() -> None:
    assert decided(warm([1, 0, 0, 1], {0: 4, 1: 4, 2: 4}), prompt(10)) == {1, 2}


def test_a_prompt_is_forgotten_20_minutes_after_its_last_use() -> None:
    table = PrefixTable(2)
    table.insert(prompt(4), 0, 0.0)
    table.insert(prompt(2), 1, 600.0)
    assert table.matched(prompt(4), 1200.0) == [4, 2]
    assert table.matched(prompt(4), 1200.1) == [2, 2], "the other pod's use kept the head for both"
    assert table.matched(prompt(4), 1800.1) == [0, 0]


def test_one_table_of_200000_blocks_serves_all_pods() -> None:
    table = PrefixTable(2)
    for first in range(0, 300_000, 50_000):
        table.insert(prompt(50_000, first), first // 50_000 % 2, 0.0)
    assert len(table._blocks) == 200_000 * 128 // 100
    assert table.matched(prompt(1, first=0), 0.0) == [1, 0], "a chain is shortened from behind"
    assert table.matched(prompt(50_000, first=0), 0.0) == [6000, 0]
