from __future__ import annotations

import pytest

from sim.policies.dynamo import ActiveBlocks, Dynamo
from tests.sim.policies.routing import busy, decided, prompt, started


def warm(prefill: list[int], decoding: list[int], blocks: int = 3) -> Dynamo:
    """Worker 0 has computed the first `blocks` blocks; `decoding` blocks of other prompts run."""
    policy = busy(started(Dynamo(), 2), [0, 0], prefill)
    policy.computed(prompt(blocks), 0)
    for index, count in enumerate(decoding):
        policy._active[index].add(prompt(count, first=1000))
    return policy


@pytest.mark.parametrize(
    ("decoding", "chosen"),
    [
        # Blocks at worker 0: 0 + 4 - 3 + its own 4 + decoding; at worker 1: 4 + 4.
        ([2, 0], {0}),
        ([3, 0], {0, 1}),
        ([4, 0], {1}),
    ],
)
def test_a_block_matched_is_worth_a_block_decoding(decoding: list[int], chosen: set[int]) -> None:
    assert decided(warm([0, 0], decoding), prompt(4)) == chosen


@pytest.mark.parametrize(("owed", "chosen"), [(299, {0}), (300, {0, 1}), (301, {1})])
def test_a_token_matched_is_worth_a_token_to_prefill(owed: int, chosen: set[int]) -> None:
    assert decided(warm([owed, 0], [0, 0]), prompt(4)) == chosen


def test_a_full_match_loses_to_more_decoding_than_it_saves() -> None:
    # 0 + 400 - 400 + 400 + 500 against 400 + 400 + 0.
    assert decided(warm([0, 0], [5, 0], blocks=4), prompt(4)) == {1}


def test_a_placement_books_what_the_cache_lacks_and_activates_the_prompt() -> None:
    policy = warm([0, 0], [0, 0])
    assert policy.place(prompt(4), 0.0) == 0
    assert policy.prefill == [100, 0]
    assert policy._active[0].tokens == 400
    policy.first_token(prompt(4), 1.0, 1.0)
    assert policy.prefill == [0, 0]
    assert policy._active[0].tokens == 400
    policy.finish(prompt(4), 2.0, None)
    assert policy._active[0].tokens == 0


def test_requests_that_share_a_prefix_decode_with_it_once() -> None:
    active = ActiveBlocks()
    one, other = prompt(4, tokens=450), prompt(3, tokens=320)
    active.add(one)
    assert active.with_request(other) == 450 + 20
    active.add(other)
    active.remove(one)
    assert active.tokens == 320
    active.remove(other)
    assert active.tokens == 0


def test_nothing_is_known_of_a_sibling_whose_prompt_is_not_computed() -> None:
    policy = started(Dynamo(), 2)
    first = policy.place(prompt(4), 0.0)
    assert first is not None
    # 400 owed and 400 shared there, against 400 to prefill and 400 to decode here.
    assert decided(policy, prompt(4, id_=1)) == {1 - first}
