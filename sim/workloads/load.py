"""How busy a workload keeps a fleet at the least: by this the defaults of the generated ones are chosen.

Every prompt's blocks that an earlier prompt had are free, wherever that was; the rest is prefilled at the
endpoint's rate, slowed by the streams that decode beside it as in the engine model. Real routing computes
a hot prefix on several endpoints and loses some to eviction, so it is busier than this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.capacity import PREFILL_OVERHEAD
from sim.timing import DECODE_SLOWDOWN, MIXED_SLOWDOWN, PREFILL_SLOWDOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.policy import Job


@dataclass(frozen=True, slots=True)
class Equals:
    """A fleet of equal endpoints; the defaults are the eight that published comparisons run on."""

    endpoints: int = 8
    prefill: float = 20_480.0  # tokens a second of each, alone
    tpot: float = 0.0108  # seconds per output token alone: of the H100 that the catalogue gives that prefill


REFERENCE = Equals()


def uncached_tokens(jobs: Sequence[Job]) -> int:
    """Prompt tokens that a cache shared by all and never full would still have to compute."""
    seen: set[int] = set()
    total = 0
    for job in jobs:
        # Chained names: a block that was seen before had all before it seen too.
        matched = sum(block in seen for block in job.blocks)
        total += job.prompt_tokens - matched * job.block_tokens
        seen.update(job.blocks)
    return total


def busy_fraction(jobs: Sequence[Job], fleet: Equals = REFERENCE) -> float:
    """Share of time, from 0 to the last arrival, that the average endpoint prefills; over 1: it cannot."""
    seconds = jobs[-1].arrival * fleet.endpoints
    work = len(jobs) * PREFILL_OVERHEAD + uncached_tokens(jobs) / fleet.prefill
    asked = sum(job.output_tokens for job in jobs) * fleet.tpot / seconds  # streams at no slowdown
    busy = streams = 0.0
    for _ in range(_ROUNDS):  # each slows the other: to the fixed point
        streams = min(asked * (1 + DECODE_SLOWDOWN * streams) * (1 + MIXED_SLOWDOWN * min(1, busy)), _STREAMS)
        busy = work * (1 + PREFILL_SLOWDOWN * streams) / seconds
    return busy


_ROUNDS = 20  # enough for three digits at any load that can be served
_STREAMS = 256  # batch slots: more streams than that never run at once
