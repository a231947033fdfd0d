from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.policies.holders import Holders, Tree
from tests.sim.policies.routing import prompt

PODS = 3
BELIEFS = st.lists(st.tuples(st.integers(0, PODS - 1), st.sets(st.integers(1, 8))), max_size=12)


def test_a_gap_ends_a_contiguous_match_but_not_the_other() -> None:
    holders = Holders([None, None])
    holders.insert(0, [1, 2, 3], 100)
    holders.insert(1, [1, 3], 100)
    assert holders.contiguous([1, 2, 3, 4]) == [3, 1]
    assert holders.anywhere([1, 2, 3, 4]) == [3, 2]


def test_a_block_that_nobody_holds_ends_both_matches() -> None:
    holders = Holders([None])
    holders.insert(0, [1, 3], 100)
    assert holders.contiguous([1, 2, 3]) == holders.anywhere([1, 2, 3]) == [1]


def test_the_least_recently_used_block_makes_room() -> None:
    holders = Holders([300, None])
    holders.insert(0, [1, 2, 3], 100)
    holders.insert(0, [1], 100)
    holders.insert(0, [4], 100)
    assert [holders.anywhere([block])[0] for block in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert holders.size(0) == 3


def test_a_tree_loses_the_end_of_a_chain_before_its_head() -> None:
    tree = Tree([300])
    tree.add(prompt(4), 0)
    assert tree.matched(prompt(4)) == [300]


def test_a_match_is_never_longer_than_the_prompt() -> None:
    tree = Tree([None])
    tree.add(prompt(4), 0)
    assert tree.matched(prompt(4, tokens=350)) == [350]


@given(BELIEFS, st.lists(st.integers(1, 9), unique=True))
def test_matches_are_what_counting_by_hand_gives(
    beliefs: list[tuple[int, set[int]]], blocks: list[int]
) -> None:
    holders, held = Holders([None] * PODS), [set[int]() for _ in range(PODS)]
    for pod, more in beliefs:
        holders.insert(pod, more, 100)
        held[pod] |= more
    known = next((n for n, b in enumerate(blocks) if not any(b in mine for mine in held)), len(blocks))
    assert holders.anywhere(blocks) == [sum(b in mine for b in blocks[:known]) for mine in held]
    assert holders.contiguous(blocks) == [
        next((n for n, b in enumerate(blocks) if b not in mine), len(blocks)) for mine in held
    ]
