from __future__ import annotations

import pytest

from sim.policies.production_stack import ProductionStackLoadAware
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(in_flight: list[int], blocks: int) -> ProductionStackLoadAware:
    policy = busy(started(ProductionStackLoadAware(), len(in_flight)), in_flight)
    policy.computed(prompt(blocks), 0)
    return policy


@pytest.mark.parametrize(
    ("in_flight", "blocks", "chosen"),
    [
        ([5, 3], 6, {0}),  # mean 4: .6 - .25 = .35 against 0 + .25
        ([5, 3], 4, {1}),  # .4 - .25 = .15 against .25
        ([5, 3], 5, {0, 1}),  # .5 - .25 against .25
        ([9, 7], 2, {1}),  # mean 8: .2 - .125 = .075 against .125
        ([9, 7], 3, {0}),  # .3 - .125 = .175 against .125
    ],
)
def test_a_match_is_weighed_against_relative_load(
    in_flight: list[int], blocks: int, chosen: set[int]
) -> None:
    assert decided(warm(in_flight, blocks), prompt(10)) == chosen


def test_below_a_mean_of_one_load_counts_in_requests() -> None:
    assert decided(warm([1, 0], 10), prompt(10)) == {0, 1}  # 1 - .5 against 0 + .5
    assert decided(warm([1, 0], 9), prompt(10)) == {1}


def test_a_prompt_shorter_than_a_block_goes_by_load() -> None:
    assert decided(busy(started(ProductionStackLoadAware(), 3), [2, 1, 1]), prompt(0, tokens=7)) == {1, 2}
