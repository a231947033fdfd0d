"""LMetric: the product of new prefill work and batch size, without a parameter.

score = (uncached prompt tokens in flight + this prompt's) * (requests in flight + 1), the lowest wins.
SGLang's port multiplies this prompt's uncached tokens alone; the paper's indicator counts those already
queued, which is the stronger one and used here. Equal scores go to the shorter queue (as in that port),
then to chance. What is cached is believed from the router's own placements, LRU in the KV capacity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.policies.holders import Tree
from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job


class LMetric(Router):
    """Prefill work times batch."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty tree of the engines' capacities."""
        self._tree = Tree(kv_tokens)

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The lowest product."""
        uncached = [job.prompt_tokens - tokens for tokens in self._tree.matched(job)]
        scores = [
            (float((owed + new) * (load + 1)), float(load))
            for owed, new, load in zip(self.prefill, uncached, self.in_flight, strict=True)
        ]
        index = self.lowest(scores)
        return Pick(index, uncached[index])

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """Believed cached from its placement on."""
        self._tree.add(job, index)
