"""Who holds which blocks, for many blocks at once: a million in a fraction of a second, where one after the
other takes several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

AT_ONCE = 1 << 16
"""Blocks made into Python's numbers at a time, so that a million take no memory twice."""


def masks(held: Sequence[tuple[int, NDArray[np.uint64]]]) -> dict[int, int]:
    """From each holder's bit and blocks: every block with the bits of all its holders; equal ones are
    shared."""
    held = [(bit, blocks) for bit, blocks in held if len(blocks)]
    if not held:
        return {}
    blocks = np.concatenate([of_one for _, of_one in held])
    who = np.repeat(np.arange(len(held), dtype=np.uint16), [len(of_one) for _, of_one in held])
    order = np.argsort(blocks, kind="stable")
    blocks, who = blocks[order], who[order]
    first = np.flatnonzero(np.concatenate(([True], blocks[1:] != blocks[:-1])))
    # A sum of random numbers stands for a set of holders: of a thousand sets, two collide once in 2^44 times.
    draws = np.random.default_rng(0).integers(0, 1 << 63, len(held), dtype=np.uint64)
    _, example, which = np.unique(np.add.reduceat(draws[who], first), return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(blocks))
    distinct = [
        sum({held[n][0] for n in who[start:end].tolist()})
        for start, end in zip(first[example].tolist(), ends[example].tolist(), strict=True)
    ]
    of_block = blocks[first]
    del blocks, who, order, first
    found: dict[int, int] = {}
    for start in range(0, len(of_block), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found.update(
            zip(of_block[part].tolist(), map(distinct.__getitem__, which[part].tolist()), strict=True)
        )
    return found
