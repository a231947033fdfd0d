"""NVIDIA Dynamo's KV router with its defaults.

cost = max(active_prefill_blocks + prompt_blocks - overlap_blocks, 0) + decode_blocks, the lowest wins,
ties at random: prefill scale 1, device credit 1.0, decay, request weight and temperature 0. Counted here
in tokens, all terms times the block size, which changes no decision. Decode blocks are those that would be
active with this request: distinct blocks of the requests there, shared prefixes once; output blocks are
not tracked, as by default. The cache comes from KV events (`sim.policies.kv_events`); no prediction
bridges the gap between a placement and its event, which is off by default too. There are no host or disk
tiers.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sim.policies.kv_events import KvEventRouter
from sim.policies.router import Pick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint
    from sim.policy import Job


class ActiveBlocks:
    """The distinct prompt blocks of the requests on one endpoint, and how many tokens they are."""

    def __init__(self) -> None:
        self.tokens = 0
        self._users: Counter[int] = Counter()

    def with_request(self, job: Job) -> int:
        """Tokens that would be active if `job` came too."""
        shared = 0
        for block in job.blocks:  # an active block's prefix is active: the first new one ends the shared part
            if block not in self._users:
                break
            shared += job.block_tokens
        return self.tokens + job.prompt_tokens - shared

    def add(self, job: Job) -> None:
        """`job` runs here now."""
        self.tokens = self.with_request(job)
        self._users.update(job.blocks)

    def remove(self, job: Job) -> None:
        """`job` no longer runs here: what nobody shares is no longer active."""
        users = self._users
        self.tokens -= job.prompt_tokens - len(job.blocks) * job.block_tokens
        for block in job.blocks:
            users[block] -= 1
            if not users[block]:
                del users[block]
                self.tokens -= job.block_tokens


class Dynamo(KvEventRouter):
    """Prefill still owed plus blocks to decode with, in tokens."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:
        """Empty caches, nothing active."""
        super().prepare(endpoints, kv_tokens)
        self._active = [ActiveBlocks() for _ in endpoints]

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The lowest cost."""
        matched = self.kv.matched(job)
        costs = [
            # Floored at 0 as published, which a device credit of 1 and no other tiers never reach.
            owed + job.prompt_tokens - overlap + active.with_request(job)
            for owed, overlap, active in zip(self.prefill, matched, self._active, strict=True)
        ]
        index = self.lowest(costs)
        return Pick(index, job.prompt_tokens - matched[index])

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: ARG002
        """Its blocks are active from now on."""
        self._active[index].add(job)

    def ended(self, job: Job, index: int, failed: bool) -> None:
        """Its blocks are no longer active."""
        super().ended(job, index, failed)
        self._active[index].remove(job)
