"""A paged prefix cache: which KV blocks an engine holds, which are in use, which go next.

A block is named by a hash chained over everything before it, so one name stands for a whole prefix.
Blocks of running requests are pinned; the others stay matchable until their space is needed. A request's
blocks fall idle last first, and the pins of a prefix always outlive those of what follows it, so the least
recently used block is always a leaf and no block is ever held without its prefix.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(slots=True)
class Lease:
    """The blocks of one running request."""

    pinned: list[int] = field(default_factory=list)  # names of its matchable blocks, prefix first
    private: int = 0  # blocks set aside for what is not computed yet, or fills no whole block


class BlockCache:
    """At most `capacity` blocks, shared by requests that begin alike."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reused = 0  # blocks that requests found here, ever
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._private = 0

    @property
    def used(self) -> int:
        """Blocks held by running requests; cached ones that nobody runs on count as free, as in engines."""
        return len(self._pins) + self._private

    def match(self, blocks: Iterable[int]) -> int:
        """How many leading `blocks` are held."""
        matched = 0
        for block in blocks:
            if block not in self._pins and block not in self._idle:
                break
            matched += 1
        return matched

    def acquire(self, blocks: Sequence[int], total: int) -> Lease | None:
        """Pin the leading `blocks` that are held and set aside the rest of `total`, evicting if it must.

        None, and nothing changed, where running requests leave too little room.
        """
        found = list(islice(blocks, self.match(blocks)))
        fresh = total - len(found)
        idle_matches = sum(block in self._idle for block in found)
        if fresh > self.capacity - self.used - idle_matches:
            return None
        lease = Lease(found, fresh)
        self._pin(found)
        self.reused += len(found)
        self._private += fresh
        for _ in range(self.used + len(self._idle) - self.capacity):
            self._idle.popitem(last=False)
        return lease

    def commit(self, lease: Lease, blocks: Sequence[int]) -> None:
        """`blocks` are computed, in the lease's private space: from now on others can match them.

        Where someone else computed the same block meanwhile, one copy is kept and the space given back.
        """
        lease.private -= len(blocks)
        self._private -= len(blocks)
        lease.pinned.extend(blocks)
        self._pin(blocks)

    def release(self, lease: Lease) -> None:
        """The request is over: its blocks stay matchable until their space is needed."""
        pins, idle = self._pins, self._idle
        for block in reversed(lease.pinned):
            if pins[block] > 1:
                pins[block] -= 1
            else:
                del pins[block]
                idle[block] = None
        self._private -= lease.private
        lease.pinned = []
        lease.private = 0

    def _pin(self, blocks: Iterable[int]) -> None:
        pins, idle = self._pins, self._idle
        for block in blocks:
            if block in pins:
                pins[block] += 1
            else:
                pins[block] = 1
                idle.pop(block, None)
