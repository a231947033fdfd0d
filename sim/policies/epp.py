"""llm-d's endpoint picker (EPP): its default scorers, and its prefix-affinity filter.

Both believe in the approximate prefix index: what was routed somewhere is there until an LRU of 31,250
blocks of 64 tokens forgets it; it never hears of engines' evictions. As published, hits need not be
contiguous as long as some pod holds each block, and heads are forgotten first. Workload blocks of fewer than
64 tokens are joined; longer ones count as several, so the LRU holds the same tokens. Where the engine's
block count is known the index can size itself; the fixed default is used here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.model import Load
from sim.policies.holders import Holders
from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job

_BLOCK_TOKENS = 64  # the floor under the configured 16
_LRU_BLOCKS = 31_250  # per pod
_MATCH_CAP_TOKENS = 131_072  # no more of a prompt is hashed

_PREFIX_WEIGHT, _QUEUE_WEIGHT, _KV_WEIGHT = 3, 2, 2

_AFFINITY = 0.80  # share of the prompt's blocks that makes a pod warm
_MAX_TTFT_PENALTY = 18.0  # seconds by which the best warm pod may be slower than the best cold one
_PEAK_PREFILL = 15_928  # tokens a second, of every pod: Qwen 32B on two H100
_TOKEN_LOAD_CAP = 4_194_304  # tokens; the token-load score is 0 from there on


class ApproximateIndex:
    """What was routed where, in blocks of at least 64 tokens."""

    def __init__(self, endpoints: int) -> None:
        self._holders = Holders([_LRU_BLOCKS * _BLOCK_TOKENS] * endpoints)
        self._none = [0.0] * endpoints

    def ratios(self, job: Job) -> list[float]:
        """Each pod's share of the prompt's blocks, 0..1."""
        blocks, _ = _index_blocks(job)
        if not blocks:
            return list(self._none)
        return [hits / len(blocks) for hits in self._holders.anywhere(blocks)]

    def insert(self, job: Job, index: int) -> None:
        """The request was routed to `index`."""
        self._holders.insert(index, *_index_blocks(job))


class EppDefault(Router):
    """Weighted sum of prefix 3, queue 2 and KV utilization 2; highest score, ties shuffled.

    Queue and KV are gauges of the last scrape, 50 ms apart; the EPP ignores their age.
    """

    scrape_interval = 0.05

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty index, and pods that look idle until the first scrape."""
        self._index = ApproximateIndex(len(endpoints))
        self._loads = [Load(at=0.0)] * len(endpoints)

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The highest score."""
        scores = (
            _PREFIX_WEIGHT * prefix + _QUEUE_WEIGHT * queue + _KV_WEIGHT * (1 - load.kv_used)
            for prefix, queue, load in zip(
                self._index.ratios(job), queue_scores(self._loads), self._loads, strict=True
            )
        )
        return Pick(self.lowest([-score for score in scores]))

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """The index learns from decisions alone."""
        self._index.insert(job, index)

    def scrape(self, index: int, load: Load, now: float) -> None:  # noqa: ARG002
        """Keep the newest gauges."""
        self._loads[index] = load


class EppPrefixAffinity(Router):
    """Only warm pods, unless they are 18 s behind; of those kept, the fewest uncached tokens.

    In-flight tokens are each prompt's uncached part, from placement to the first chunk of the answer, as the
    in-flight-load producer counts by default. It reads no gauges. Exploration is off, as by default.
    """

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty index."""
        self._index = ApproximateIndex(len(endpoints))

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """Filter, then the highest token-load score."""
        ratios = self._index.ratios(job)
        uncached = [round(job.prompt_tokens * (1 - ratio)) for ratio in ratios]
        loads = [min(owed + own, _TOKEN_LOAD_CAP) for owed, own in zip(self.prefill, uncached, strict=True)]
        index = self.lowest(loads, self._kept(ratios))
        return Pick(index, uncached[index])

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """The index learns from decisions alone."""
        self._index.insert(job, index)

    def _kept(self, ratios: Sequence[float]) -> Sequence[int]:
        everyone = range(len(ratios))
        warm = [i for i in everyone if ratios[i] >= _AFFINITY]
        cold = [i for i in everyone if ratios[i] < _AFFINITY]
        if not warm or not cold:
            return everyone
        behind = min(self.prefill[i] for i in warm) - min(self.prefill[i] for i in cold)
        return everyone if behind / _PEAK_PREFILL > _MAX_TTFT_PENALTY else warm


def queue_scores(loads: Sequence[Load]) -> list[float]:
    """(max - waiting) / (max - min) of each pod; 1 for all where they are equal."""
    waiting = [load.waiting for load in loads]
    most, spread = max(waiting), max(waiting) - min(waiting)
    return [(most - queue) / spread if spread else 1.0 for queue in waiting]


def _index_blocks(job: Job) -> tuple[Sequence[int], int]:
    """The prompt's blocks as the index hashes them, and their size in tokens."""
    joined = -(-_BLOCK_TOKENS // job.block_tokens)
    size = joined * job.block_tokens
    # A hash is chained over all before it, so the last of the joined ones names them all.
    return job.blocks[joined - 1 :: joined][: _MATCH_CAP_TOKENS // size], size
