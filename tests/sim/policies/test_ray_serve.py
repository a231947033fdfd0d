from __future__ import annotations

from sim.policies.ray_serve import RayPrefixAware
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(in_flight: list[int], *, held: int = 1) -> RayPrefixAware:
    policy = busy(started(RayPrefixAware(), len(in_flight)), in_flight)
    policy.placed(prompt(held), 0, 0.0)
    return policy


def test_a_tenth_of_the_prompt_holds_it_however_busy_the_replica() -> None:
    assert decided(warm([10_000, 0]), prompt(10)) == {0}


def test_less_than_a_tenth_goes_to_the_smallest_tree() -> None:
    assert decided(warm([0, 10_000]), prompt(11)) == {1}


def test_trees_of_one_size_go_by_queue() -> None:
    policy = warm([0, 5, 3])
    policy.placed(prompt(2, first=70), 1, 0.0)
    assert decided(policy, prompt(5, first=500)) == {2}
    policy.placed(prompt(1, first=80), 2, 0.0)
    assert decided(policy, prompt(5, first=500)) == {0}


def test_among_those_with_the_longest_match_the_shortest_queue_wins() -> None:
    policy = warm([4, 2, 0], held=3)
    policy.placed(prompt(3), 1, 0.0)
    policy.placed(prompt(2), 2, 0.0)
    assert decided(policy, prompt(10)) == {1}


def test_a_miss_on_equal_replicas_is_drawn() -> None:
    assert decided(started(RayPrefixAware(), 3), prompt(4)) == {0, 1, 2}


def test_the_tree_never_forgets() -> None:
    policy = started(RayPrefixAware(), 1, kv_tokens=100)
    for first in (1, 1000, 2000):
        policy.placed(prompt(50, first), 0, 0.0)
    assert policy._tree.size(0) == 150
