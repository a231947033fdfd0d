"""Which endpoints are believed to hold which prefix blocks.

A match is contiguous from the first block: a later block without its parents is worth nothing. Each
endpoint's belief is a least-recently-used set that never exceeds its KV capacity, so that it forgets
about when the engine does. Holders of a block are a bit mask, so one walk matches every candidate at once.

Blocks are unsigned 64-bit hashes. A million of them, each at two endpoints, must fit in 150 MB: the one
dict from blocks to masks takes most of that, so orders of use are kept without a dict (`_Recency`), and
equal masks are one object.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fleet.holders import masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MASKS_MAX = 16_384
"""Distinct masks remembered for sharing, about 2 MB; pairs out of 100 endpoints need 5,050."""

STALE_MIN = 64
"""Log entries: fewer stale ones than this are never worth a clean-up."""

TRIM_SHARE = 8
"""The log's front is cut off once an n-th of it is behind us: moving 8 n bytes per entry read is cheap."""


class Members(NamedTuple):
    """Some of an index's addresses, ready to be matched; good until an address is added or discarded."""

    bits: dict[int, str]  # address by bit
    together: int  # all bits


class PrefixIndex:
    """Blocks to endpoints, for a set of endpoint addresses that may change."""

    def __init__(self, addresses: Iterable[str], capacity: int) -> None:
        """`capacity`: blocks believed to fit in each endpoint until `resize` says better."""
        self._bit: dict[str, int] = {}
        self._free_bits: list[int] = []
        self._recency: dict[str, _Recency] = {}
        self._holders: dict[int, int] = {}
        self._masks: dict[int, int] = {}
        for address in addresses:
            self.add(address, capacity)

    def add(self, address: str, capacity: int) -> None:
        """Know `address`, with room for `capacity` blocks; one that is known keeps what it holds."""
        if address in self._bit:
            self.resize(address, capacity)
            return
        self._bit[address] = self._free_bits.pop() if self._free_bits else 1 << len(self._bit)
        self._recency[address] = _Recency(capacity)

    def discard(self, address: str) -> None:
        """Know `address` no longer, if it was known; another may take its bit."""
        if address in self._bit:
            self.clear(address)
            del self._recency[address]
            self._free_bits.append(self._bit.pop(address))

    def members(self, candidates: Iterable[str]) -> Members:
        """Known addresses in the form that is matched: worth keeping where they are many."""
        bits = {self._bit[address]: address for address in candidates}
        return Members(bits, sum(bits))  # distinct bits, so their union

    def match(self, blocks: Sequence[int], candidates: Iterable[str]) -> dict[str, int]:
        """Leading blocks that each candidate holds; candidates that hold none are left out."""
        members = self.members(candidates)
        matched: dict[str, int] = {}
        for mask, depth in self.depths(blocks, members):
            _record(matched, members.bits, mask, depth)
        return matched

    def depths(self, blocks: Sequence[int], members: Members) -> list[tuple[int, int]]:
        """The same by number of blocks, for members that are too many to be named one by one.

        Bit masks of those who hold just so many, with that number; those that hold none are left out.
        """
        alive = members.together
        holders_of = self._holders.get
        found: list[tuple[int, int]] = []
        seen = -1
        for depth, block in enumerate(blocks):
            holders = holders_of(block, 0)
            if holders is seen:  # most neighbours share their mask, and equal masks are mostly one object
                continue
            seen = holders
            if lost := alive & ~holders:
                if depth:
                    found.append((lost, depth))
                alive ^= lost
                if not alive:
                    return found
        if blocks:
            found.append((alive, len(blocks)))
        return found

    def insert(self, address: str, blocks: Sequence[int]) -> list[int]:
        """Believe that `address` now holds `blocks`, most recently used; the oldest make room.

        Returns those that were not believed to be there before.
        """
        recency = self._recency[address]
        # From the tail, so that a chain's head is the youngest: eviction then shortens chains from behind.
        used = blocks[recency.capacity - 1 :: -1]
        new, known = self._hold(self._bit[address], used)
        recency.use(used, known)
        self._evict(address)
        return new

    def remove(self, address: str, blocks: Sequence[int]) -> None:
        """Believe no longer that `address` holds `blocks`."""
        bit = self._bit[address]
        self._recency[address].drop([block for block in blocks if self._release(bit, block)])

    def resize(self, address: str, capacity: int) -> None:
        """The endpoint's KV cache holds `capacity` of our blocks, at least one."""
        self._recency[address].capacity = max(1, capacity)
        self._evict(address)

    def clear(self, address: str) -> None:
        """The endpoint restarted or is gone: forget all it held."""
        bit = self._bit[address]
        for block in self._recency[address].pop_all():
            self._release(bit, block)

    def capacity(self, address: str) -> int:
        """Blocks that `address` has room for."""
        return self._recency[address].capacity

    def dump(self, address: str) -> bytes:
        """The blocks that `address` is believed to hold as unsigned 64-bit numbers of this machine's order
        of bytes, least recently used first."""
        return self._recency[address].in_order()

    def load(self, dumps: Mapping[str, bytes]) -> None:
        """Believe that endpoints hold what was dumped of each, used after all that they hold so far.

        Into an empty index, all together cost a fifth of one after the other.
        """
        fresh = not self._holders
        held = []
        for address, packed in dumps.items():
            recency = self._recency[address]
            blocks = array("Q")
            blocks.frombytes(packed[: len(packed) // 8 * 8])
            used = blocks[-recency.capacity :]
            known: list[int] = []
            if fresh:
                held.append((self._bit[address], np.frombuffer(used, dtype=np.uint64)))
            else:
                _, known = self._hold(self._bit[address], used)
            recency.use(used, known)
            self._evict(address)
        if fresh:
            self._holders = masks(held)

    def holds(self, address: str) -> int:
        """Blocks that `address` is believed to hold."""
        return self._recency[address].held

    def __len__(self) -> int:
        """Distinct blocks known."""
        return len(self._holders)

    def _hold(self, bit: int, blocks: Sequence[int]) -> tuple[list[int], list[int]]:
        """Add a holder to `blocks`; those that lacked it, and those that had it."""
        new, known = [], []
        holders = self._holders
        holders_of, share = holders.get, self._masks.setdefault
        for block in blocks:
            mask = holders_of(block, 0)
            if mask & bit:
                known.append(block)
            else:
                mask |= bit
                holders[block] = share(mask, mask)
                new.append(block)
        if len(self._masks) > MASKS_MAX:
            self._masks.clear()  # costs sharing between older and newer blocks, no more
        return new, known

    def _evict(self, address: str) -> None:
        bit = self._bit[address]
        for block in self._recency[address].pop_excess():
            self._release(bit, block)

    def _release(self, bit: int, block: int) -> bool:
        """Take a holder from `block`; whether it was one."""
        mask = self._holders.get(block, 0)
        if not mask & bit:
            return False
        mask ^= bit
        if mask:
            self._holders[block] = self._masks.setdefault(mask, mask)
        else:
            del self._holders[block]
        return True


class _Recency:
    """One endpoint's blocks in the order of their last use, at eight bytes a use.

    A use is appended to a log and nothing is moved. So a block may be in the log several times, and only
    its last entry counts: `_stale` says how many earlier ones there are, which are skipped when they come
    up as the oldest, or cleaned out when they outnumber the rest.
    """

    __slots__ = ("_first", "_log", "_stale", "capacity", "held")

    def __init__(self, capacity: int) -> None:
        self.capacity = max(1, capacity)
        self.held = 0
        self._log = array("Q")
        self._first = 0  # entries before this one have been popped
        self._stale: dict[int, int] = {}

    def use(self, blocks: Sequence[int], known: list[int]) -> None:
        """Make `blocks` the most recently used, the last of them most; `known` of them were held already."""
        self._log.extend(array("Q", blocks))
        self.held += len(blocks) - len(known)
        if known:
            self._spoil(known)

    def drop(self, blocks: list[int]) -> None:
        """Forget `blocks`, each of which is held."""
        self.held -= len(blocks)
        self._spoil(blocks)

    def pop_excess(self) -> list[int]:
        """Forget the least recently used blocks beyond the capacity, and name them."""
        popped: list[int] = []
        excess = self.held - self.capacity
        if excess <= 0:
            return popped
        log, stale, first = self._log, self._stale, self._first
        stale_of = stale.get
        while excess:
            block = log[first]
            first += 1
            count = stale_of(block)
            if count is None:
                popped.append(block)
                excess -= 1
            elif count == 1:
                del stale[block]
            else:
                stale[block] = count - 1
        self.held -= len(popped)
        self._first = first
        if first * TRIM_SHARE > len(log):
            del log[:first]
            self._first = 0
        return popped

    def in_order(self) -> bytes:
        """Every block, packed, least recently used first."""
        self._clean()
        return self._log.tobytes()

    def pop_all(self) -> array[int]:
        """Forget every block, and name them, least recently used first."""
        self._clean()
        popped, self._log = self._log, array("Q")
        self.held = 0
        return popped

    def _spoil(self, blocks: list[int]) -> None:
        """The last entries so far of `blocks` count no more; clean up once stale ones outnumber live ones."""
        stale = self._stale
        stale_of = stale.get
        for block in blocks:
            stale[block] = stale_of(block, 0) + 1
        if len(self._log) - self._first - self.held > max(self.held, STALE_MIN):
            self._clean()  # copies at most two entries per use since the last time

    def _clean(self) -> None:
        stale = self._stale
        stale_of = stale.get
        live = array("Q")
        keep = live.append
        for block in self._log[self._first :]:
            count = stale_of(block)
            if count is None:
                keep(block)
            elif count == 1:
                del stale[block]
            else:
                stale[block] = count - 1
        self._log, self._first = live, 0


def _record(matched: dict[str, int], bits: dict[int, str], mask: int, depth: int) -> None:
    while mask:
        lowest = mask & -mask
        matched[bits[lowest]] = depth
        mask ^= lowest
