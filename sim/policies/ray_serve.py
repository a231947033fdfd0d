"""Ray Serve LLM's prefix-aware router with its defaults.

The imbalance threshold is infinite, so load never overrides the prefix: a match of at least 0.1 of the
prompt goes to the replicas with the longest match, anything else to the replica with the smallest tree.
Among several the shortest queue wins, as Serve's replica selection does, then chance. Eviction is off: the
tree only grows. Trees are compared in whole blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.policies.holders import Tree
from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job

_MATCH_THRESHOLD = 0.1  # share of the prompt


class RayPrefixAware(Router):
    """Longest match, else smallest tree."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """An empty tree without bound."""
        self._tree = Tree([None] * len(endpoints))

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The holders' shortest queue, or the smallest tree."""
        matched = self._tree.matched(job)
        best = max(matched)
        if best and best >= _MATCH_THRESHOLD * job.prompt_tokens:
            return Pick(self.lowest(self.in_flight, [i for i, n in enumerate(matched) if n == best]))
        return Pick(self.lowest([(self._tree.size(i), n) for i, n in enumerate(self.in_flight)]))

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """The tree learns every decision."""
        self._tree.add(job, index)
