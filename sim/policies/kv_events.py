"""What a router sees that engines tell of their caches: blocks computed, and blocks evicted.

Such events are exact. A policy here does not see the engine, so they are approximated: a prompt's blocks
appear with its first token, are touched again at its end, and go least recently used first when the KV
capacity is full. It errs where running requests pin blocks and where generated tokens take room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.policies.holders import Tree
from sim.policies.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job


class KvEventRouter(Router):
    """A router whose `kv` follows the engines' caches."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """Caches as large as the engines', empty."""
        self.kv = Tree(kv_tokens)

    def computed(self, job: Job, index: int) -> None:
        """The engine stored the prompt's blocks."""
        self.kv.add(job, index)

    def ended(self, job: Job, index: int, failed: bool) -> None:
        """The engine let go of the blocks: from now on they age."""
        if not failed:
            self.kv.add(job, index)
