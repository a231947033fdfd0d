"""A paged prefix cache: which KV blocks an engine holds, which are in use, which go next.

A block is named by a hash chained over everything before it, so one name stands for a whole prefix.
Blocks of running requests are pinned; the others stay matchable until their space is needed. A request's
blocks fall idle last first, and the pins of a prefix always outlive those of what follows it, so the least
recently used block is always a leaf and no block is ever held without its prefix.

Who listens is told of every block that becomes matchable and of every one that is evicted. Blocks set aside
for what nobody names are a request's own: they are never told.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sim.overlay import Overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping, Sequence


@dataclass(frozen=True, slots=True)
class Lease:
    """The blocks of one running request."""

    pinned: tuple[int, ...] = ()  # names of its matchable blocks, prefix first
    private: int = 0  # blocks set aside for what is not computed yet, or fills no whole block


@dataclass(frozen=True, slots=True)
class CacheChange:
    """Blocks that can be matched from now on, and blocks that no longer can; prefix first in `stored`."""

    stored: Sequence[int] = ()
    removed: Sequence[int] = ()


class BlockCache:
    """At most `capacity` blocks, shared by requests that begin alike."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reused = 0  # blocks that requests found here, ever
        self.tell: Callable[[CacheChange], None] | None = None  # who listens
        self._pins: MutableMapping[int, int] = {}
        self._idle: _Idle = _Ordered()  # least recently used first
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
        found = tuple(islice(blocks, self.match(blocks)))
        fresh = total - len(found)
        idle_matches = sum(block in self._idle for block in found)
        if fresh > self.capacity - self.used - idle_matches:
            return None
        lease = Lease(found, fresh)
        self._pin(found)
        self.reused += len(found)
        self._private += fresh
        self._evict(self.used + len(self._idle) - self.capacity)
        return lease

    def commit(self, lease: Lease, blocks: Sequence[int]) -> Lease:
        """`blocks` are computed, in the lease's private space: from now on others can match them.

        Where someone else computed the same block meanwhile, one copy is kept and the space given back.
        Returns the lease that stands instead.
        """
        self._private -= len(blocks)
        if self.tell is not None and (new := [block for block in blocks if not self.match((block,))]):
            self.tell(CacheChange(stored=new))
        self._pin(blocks)
        return Lease((*lease.pinned, *blocks), lease.private - len(blocks))

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

    def _evict(self, number: int) -> None:
        evicted = [self._idle.pop_first() for _ in range(number)]
        if evicted and self.tell is not None:
            self.tell(CacheChange(removed=evicted))

    def _pin(self, blocks: Iterable[int]) -> None:
        pins, idle = self._pins, self._idle
        for block in blocks:
            if block in pins:
                pins[block] += 1
            else:
                pins[block] = 1
                idle.pop(block, None)


class CacheTrial(BlockCache):
    """A copy to look ahead with, made at once: it looks through to `cache`, which must not change meanwhile.

    Nobody hears of what happens to it.
    """

    def __init__(self, cache: BlockCache) -> None:
        vars(self).update(vars(cache))
        self.tell = None
        self._pins = Overlay(self._pins)
        self._idle = Overlay(self._idle)


class _Ordered(OrderedDict[int, None]):
    def pop_first(self) -> int:
        return self.popitem(last=False)[0]


_Idle = _Ordered | Overlay[None]
