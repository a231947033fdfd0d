"""vLLM production-stack's `loadaware` routing.

score = matched / prompt - beta * (load - mean) / max(1, mean), beta 1, the highest wins. Load is the
router's own requests in flight. The match is asked of the engines' cache controller, hence follows the
real caches (`sim.policies.kv_events`). Ties are random, which its publication leaves open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.policies.kv_events import KvEventRouter
from sim.policies.router import Pick

if TYPE_CHECKING:
    from sim.policy import Job

_BETA = 1.0  # one full match is worth a load of twice the mean


class ProductionStackLoadAware(KvEventRouter):
    """Match against relative load."""

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The highest score."""
        mean = sum(self.in_flight) / len(self.in_flight)
        prompt = max(1, job.prompt_tokens)
        costs = [
            _BETA * (load - mean) / max(1.0, mean) - matched / prompt
            for load, matched in zip(self.in_flight, self.kv.matched(job), strict=True)
        ]
        return Pick(self.lowest(costs))
