"""Fleets, prompts and beliefs for the golden decisions of the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fleet.model import Endpoint, Hardware, Load
from sim.policies.router import Router
from sim.policy import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 100  # tokens
KV_TOKENS = 1_000_000

R = TypeVar("R", bound=Router)


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{n}:8000", "m", "v1", "p", Hardware("H100-80GB")) for n in range(count)]


def started(policy: R, count: int, seed: int = 0, kv_tokens: int = KV_TOKENS) -> R:
    policy.start(endpoints(count), [kv_tokens] * count, seed)
    return policy


def busy(policy: R, in_flight: Sequence[int], prefill: Sequence[int] | None = None) -> R:
    """`policy` with these books, as if it had placed as much."""
    policy.in_flight = list(in_flight)
    policy.prefill = list(prefill or [0] * len(in_flight))
    return policy


def prompt(blocks: int, first: int = 1, *, id_: int = 0, session: str = "", tokens: int | None = None) -> Job:
    """A prompt of whole blocks, named from `first` on; `tokens` where it has a tail, too."""
    names = range(first, first + blocks)
    return Job(id_, 0.0, tokens or blocks * BLOCK, 10, names, BLOCK, session=session)


def load(waiting: int = 0, kv_percent: int = 0) -> Load:
    return Load(at=0.0, waiting=waiting, kv_blocks_used=kv_percent, kv_blocks_max=100, tokens_per_block=32)


def decided(policy: Router, job: Job, now: float = 0.0, times: int = 60) -> set[int]:
    """Every endpoint that the policy, in this state, may choose: more than one where it draws."""
    return {policy.choose(job, now).endpoint for _ in range(times)}
