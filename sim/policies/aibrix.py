"""AIBrix's `prefix-cache` routing.

If the busiest and the idlest pod differ by more than 8 running requests, the least loaded; else the pods
with any match, best match first, the first whose running requests are at most the mean plus one standard
deviation (of the population); else the least loaded. Requests are those the gateway itself has in flight,
so nothing is scraped. Equal matches go to the shorter queue, then to chance. One table for all pods holds
200,000 blocks for 20 minutes; its block size is given as 4 (code) and 128 (documentation): the kinder 128
tokens is used.
"""

from __future__ import annotations

from collections import OrderedDict
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job

_IMBALANCE = 8  # running requests between the busiest and the idlest pod
_DEVIATIONS = 1  # above the mean that a warm pod may be
_TABLE_TOKENS = 200_000 * 128
_TABLE_SECONDS = 20 * 60.0  # since a block was last used


class PrefixTable:
    """Blocks to the pods they were routed to, one LRU for all."""

    def __init__(self, pods: int) -> None:
        self._pods = pods
        self._blocks: OrderedDict[int, tuple[int, float]] = OrderedDict()  # mask of pods, last use

    def matched(self, job: Job, now: float) -> list[int]:
        """Leading blocks that each pod was sent, 0 where none."""
        self._expire(now)
        matched = [0] * self._pods
        alive = (1 << self._pods) - 1
        for depth, block in enumerate(job.blocks, 1):
            alive &= self._blocks.get(block, (0, 0.0))[0]
            if not alive:
                break
            for pod in _bits(alive):
                matched[pod] = depth
        return matched

    def insert(self, job: Job, pod: int, now: float) -> None:
        """The request was routed to `pod`. Tails age before heads."""
        for block in reversed(job.blocks):
            mask, _ = self._blocks.get(block, (0, now))
            self._blocks[block] = (mask | 1 << pod, now)
            self._blocks.move_to_end(block)
        while len(self._blocks) * job.block_tokens > _TABLE_TOKENS:
            self._blocks.popitem(last=False)

    def _expire(self, now: float) -> None:
        while self._blocks:
            block, (_, used) = next(iter(self._blocks.items()))
            if now - used <= _TABLE_SECONDS:
                return
            del self._blocks[block]


class AibrixPrefixCache(Router):
    """Best match among pods that are not busier than most."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty table."""
        self._table = PrefixTable(len(endpoints))

    def choose(self, job: Job, now: float) -> Pick:
        """Best match within the bound, else least loaded."""
        running = self.in_flight
        if max(running) - min(running) > _IMBALANCE:
            return Pick(self.lowest(running))
        bound = fmean(running) + _DEVIATIONS * pstdev(running)
        matched = self._table.matched(job, now)
        warm = [pod for pod, blocks in enumerate(matched) if blocks and running[pod] <= bound]
        if not warm:
            return Pick(self.lowest(running))
        return Pick(self.lowest([(-m, r) for m, r in zip(matched, running, strict=True)], warm))

    def placed(self, job: Job, index: int, now: float) -> None:
        """The table learns every decision."""
        self._table.insert(job, index, now)


def _bits(mask: int) -> list[int]:
    return [pod for pod in range(mask.bit_length()) if mask >> pod & 1]
