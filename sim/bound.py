"""What no routing could go below: every prompt alone, on the fastest engine, all before it cached."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from fleet.quantiles import nearest_rank
from sim.answers import answer_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.capacity import Capacity
    from sim.fleets import SimFleet
    from sim.policy import Job


@dataclass(frozen=True, slots=True)
class Floor:
    """TTFT in seconds, over all jobs that some engine can hold."""

    mean: float
    p99: float


def ttft_floor(jobs: Sequence[Job], fleet: SimFleet) -> Floor | None:
    """The floor under the standard engine's TTFT; None without jobs. It is not meant to be reachable.

    A job takes the endpoint's overhead and its uncached tokens at the full rate, whichever endpoint makes
    that least: no queue, no streams beside. Cached is what any job before it (in order of arrival) asked
    or was answered, as if computed the moment it came, in one cache that is shared and never full. A policy
    that refuses requests may show a lower mean or p99 over the rest.
    """
    answers = answer_names(jobs)
    seen: set[int] = set()
    floors: list[float] = []
    for job in sorted(jobs, key=lambda job: job.arrival):
        matchable = job.blocks[: (job.prompt_tokens - 1) // job.block_tokens]
        cached = sum(1 for _ in takewhile(seen.__contains__, matchable)) * job.block_tokens
        able = [capacity for capacity in fleet.capacities if _holds(capacity, job)]
        if not able:
            continue
        floors.append(min(c.overhead + (job.prompt_tokens - cached) / c.rate.prefill for c in able))
        seen.update(job.blocks[: job.prompt_tokens // job.block_tokens], answers.get(job.id, ()))
    if not floors:
        return None
    return Floor(sum(floors) / len(floors), nearest_rank(sorted(floors), 0.99))


def _holds(capacity: Capacity, job: Job) -> bool:
    blocks = -(-(job.prompt_tokens + job.output_tokens) // job.block_tokens)
    return blocks <= capacity.in_blocks_of(job.block_tokens).kv_blocks
