"""SGLang gateway's `cache_aware` policy.

If the fleet is imbalanced, the shortest queue for everyone; else the worker with the longest match, if it
covers more than 0.3 of the prompt; else the shortest queue. Queues are the gateway's own requests in flight.
Its tree holds characters, 2^26 per worker, here taken as four to a token; it is trimmed at once and not every
60 to 120 s. Ties are random: so since its issue 32983 for misses, and chosen here for equal matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.policies.holders import Tree
from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job

_IMBALANCE = 64  # requests between the longest and the shortest queue
_IMBALANCE_RATIO = 1.5
_MATCH_THRESHOLD = 0.3  # share of the prompt
_TREE_TOKENS = 2**26 // 4  # per worker


class SglangCacheAware(Router):
    """Cache first, unless the whole fleet is out of balance."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty tree."""
        self._tree = Tree([_TREE_TOKENS] * len(endpoints))

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """Shortest queue or longest match."""
        longest, shortest = max(self.in_flight), min(self.in_flight)
        if longest - shortest > _IMBALANCE and longest > _IMBALANCE_RATIO * shortest:
            return Pick(self.lowest(self.in_flight))
        matched = self._tree.matched(job)
        if max(matched) > _MATCH_THRESHOLD * job.prompt_tokens:
            return Pick(self.lowest([-tokens for tokens in matched]))
        return Pick(self.lowest(self.in_flight))

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """The tree learns every decision, balanced or not."""
        self._tree.add(job, index)
