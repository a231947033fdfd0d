"""Which endpoints are believed to hold which prefix blocks.

A match is contiguous from the first block: a later block without its parents is worth nothing. Each
endpoint's belief is a least-recently-used set bounded by its KV capacity, so that it forgets about when
the engine does. Holders of a block are a bit mask, so one walk matches every candidate at once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class PrefixIndex:
    """Blocks to endpoints, for a fixed set of endpoint addresses."""

    def __init__(self, addresses: Iterable[str], capacity: int) -> None:
        """`capacity`: blocks believed to fit in each endpoint until `resize` says better."""
        self._bit = {address: 1 << n for n, address in enumerate(addresses)}
        self._held: dict[str, OrderedDict[int, None]] = {address: OrderedDict() for address in self._bit}
        self._capacity = dict.fromkeys(self._bit, capacity)
        self._holders: dict[int, int] = {}

    def match(self, blocks: Sequence[int], candidates: Iterable[str]) -> dict[str, int]:
        """Leading blocks that each candidate holds; candidates that hold none are left out."""
        bits = {self._bit[address]: address for address in candidates}
        alive = 0
        for bit in bits:
            alive |= bit
        holders_of = self._holders.get
        matched: dict[str, int] = {}
        for depth, block in enumerate(blocks):
            holders = alive & holders_of(block, 0)
            if holders != alive:
                if depth:
                    _record(matched, bits, alive & ~holders, depth)
                alive = holders
                if not alive:
                    return matched
        if blocks:
            _record(matched, bits, alive, len(blocks))
        return matched

    def insert(self, address: str, blocks: Sequence[int]) -> list[int]:
        """Believe that `address` now holds `blocks`, most recently used; the oldest make room.

        Returns those that were not believed to be there before.
        """
        new = []
        held = self._held[address]
        bit = self._bit[address]
        holders = self._holders
        # From the tail, so that a chain's head is the youngest: eviction then shortens chains from behind.
        for block in reversed(blocks[: self._capacity[address]]):
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = None
                holders[block] = holders.get(block, 0) | bit
                new.append(block)
        self._evict(address)
        return new

    def remove(self, address: str, blocks: Sequence[int]) -> None:
        """Believe no longer that `address` holds `blocks`."""
        held = self._held[address]
        for block in blocks:
            if block in held:
                del held[block]
                self._drop_holder(address, block)

    def resize(self, address: str, capacity: int) -> None:
        """The endpoint's KV cache holds `capacity` of our blocks."""
        if capacity != self._capacity[address]:
            self._capacity[address] = max(1, capacity)
            self._evict(address)

    def clear(self, address: str) -> None:
        """The endpoint restarted or is gone: forget all it held."""
        for block in self._held[address]:
            self._drop_holder(address, block)
        self._held[address].clear()

    def __len__(self) -> int:
        """Distinct blocks known."""
        return len(self._holders)

    def _evict(self, address: str) -> None:
        held = self._held[address]
        while len(held) > self._capacity[address]:
            block, _ = held.popitem(last=False)
            self._drop_holder(address, block)

    def _drop_holder(self, address: str, block: int) -> None:
        holders = self._holders[block] & ~self._bit[address]
        if holders:
            self._holders[block] = holders
        else:
            del self._holders[block]


def _record(matched: dict[str, int], bits: dict[int, str], mask: int, depth: int) -> None:
    while mask:
        lowest = mask & -mask
        matched[bits[lowest]] = depth
        mask ^= lowest
