from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleet.holders import masks


@given(st.lists(st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 5)), max_size=5))
def test_every_block_has_the_bits_of_all_who_hold_it(held: list[set[int]]) -> None:
    found = masks([(1 << n, np.array(sorted(blocks), dtype=np.uint64)) for n, blocks in enumerate(held)])
    expected: dict[int, int] = {}
    for n, blocks in enumerate(held):
        for block in blocks:
            expected[block] = expected.get(block, 0) | 1 << n
    assert found == expected


def test_more_holders_than_a_machine_word_has_bits() -> None:
    many = [(1 << n, np.array([7], dtype=np.uint64)) for n in range(300)]
    assert masks(many) == {7: (1 << 300) - 1}


def test_equal_masks_are_one_object() -> None:
    big = 1 << 100
    found = masks([(big, np.array([1, 2, 3], dtype=np.uint64))])
    assert len({id(mask) for mask in found.values()}) == 1
