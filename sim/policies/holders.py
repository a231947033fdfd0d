"""Which endpoints a router believes to hold which blocks: one LRU set per endpoint, bounded in tokens.

Kept apart from `fleet.index` on purpose: peers must not change when our own index does. Holders of a block
are a bit mask, so that one walk over a prompt serves every endpoint.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sim.policy import Job


class Holders:
    """Blocks to endpoints. `capacity` is in tokens, one figure per endpoint; None is without bound."""

    def __init__(self, capacity: Sequence[int | None]) -> None:
        self._held: list[OrderedDict[int, None]] = [OrderedDict() for _ in capacity]
        self._capacity = capacity
        self._masks: dict[int, int] = {}

    def contiguous(self, blocks: Iterable[int]) -> list[int]:
        """Leading blocks that each endpoint holds without a gap."""
        matched = [0] * len(self._held)
        alive = (1 << len(self._held)) - 1
        runs: Counter[int] = Counter()
        for mask in self._known(blocks):
            alive &= mask
            if not alive:
                break
            runs[alive] += 1
        return _spread(runs, matched)

    def anywhere(self, blocks: Iterable[int]) -> list[int]:
        """Blocks that each endpoint holds of those before the first that nobody holds; gaps count nothing."""
        return _spread(Counter(self._known(blocks)), [0] * len(self._held))

    def insert(self, index: int, blocks: Iterable[int], block_tokens: int) -> None:
        """`index` now holds `blocks`; the last of them becomes the most recently used."""
        held, masks, bit = self._held[index], self._masks, 1 << index
        for block in blocks:
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = None
                masks[block] = masks.get(block, 0) | bit
        capacity = self._capacity[index]
        while capacity is not None and len(held) * block_tokens > capacity:
            self._forget(bit, held.popitem(last=False)[0])

    def size(self, index: int) -> int:
        """Blocks that `index` is believed to hold."""
        return len(self._held[index])

    def _known(self, blocks: Iterable[int]) -> Iterator[int]:
        lookup = self._masks.get
        return takewhile(bool, (lookup(block, 0) for block in blocks))

    def _forget(self, bit: int, block: int) -> None:
        mask = self._masks[block] & ~bit
        if mask:
            self._masks[block] = mask
        else:
            del self._masks[block]


class Tree(Holders):
    """A radix tree as routers keep it: a match is contiguous, and leaves are evicted before their parents."""

    def matched(self, job: Job) -> list[int]:
        """Leading prompt tokens that each endpoint holds."""
        return [min(n * job.block_tokens, job.prompt_tokens) for n in self.contiguous(job.blocks)]

    def add(self, job: Job, index: int) -> None:
        """`index` now holds the prompt; its head is the youngest, so that chains shorten from behind."""
        self.insert(index, reversed(job.blocks), job.block_tokens)


def _spread(runs: Counter[int], matched: list[int]) -> list[int]:
    """Add each mask's count to every endpoint in the mask."""
    for mask, count in runs.items():
        rest = mask
        while rest:
            lowest = rest & -rest
            matched[lowest.bit_length() - 1] += count
            rest ^= lowest
    return matched
