"""Which of the candidates: the cheapest, and among those that cost the same the least busy."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from ext_proc.endpoint import EndpointState
    from ext_proc.price import Candidate

TIE_SECONDS = 0.0005
"""Costs closer than this are equal: the request's hop through Envoy varies by more."""

TIE_SHARE = 0.05
"""So are costs that differ by less than this share of the prefill: rates are not known better."""

EQUAL_LOAD = 1.02
"""Loads within this factor are equal."""

CHEAPEST = "the lowest cost"
AT_HOME = "among equals, where its session is"
IN_TIME = "the lowest cost of those that meet its objective"
LEAST_BUSY = "among equals, the fewest answers running for its speed"


class Considered(NamedTuple):
    """Where a request would go now, and why."""

    candidates: list[Candidate]  # at least one, best first
    why: str  # what the first of them has over the others
    of: int  # candidates there are; of many, only the likeliest were looked at


def order(
    candidates: list[Candidate], states: Mapping[str, EndpointState], home: str | None, draw: random.Random
) -> str:
    """Put the best first and the others by cost, in place; why it is the best. `home` is the session's."""
    candidates.sort(key=attrgetter("cost"))
    best = candidates[0]
    limit = best.cost + tie(best)
    equals = [candidate for candidate in candidates if candidate.cost <= limit]
    if len(equals) == 1:
        return CHEAPEST
    first = next((candidate for candidate in equals if candidate.prediction.address == home), None)
    why = AT_HOME
    if first is None:
        loads = [_load(states[candidate.prediction.address]) for candidate in equals]
        least = min(loads) * EQUAL_LOAD
        idlest = [candidate for candidate, load in zip(equals, loads, strict=True) if load <= least]
        first, why = draw.choice(idlest), LEAST_BUSY
    candidates.remove(first)
    candidates.insert(0, first)
    return why


def tie(best: Candidate) -> float:
    """Seconds by which others may cost more than the best one and are equal to it."""
    return TIE_SECONDS + TIE_SHARE * best.prediction.prefill


def prefer_in_time(candidates: list[Candidate], seconds: float) -> str | None:
    """Put those first, in place, that should answer within `seconds`; why, where that changes the first."""
    if candidates[0].prediction.ttft <= seconds:
        return None
    in_time = [candidate for candidate in candidates if candidate.prediction.ttft <= seconds]
    if not in_time:
        return None
    late = [candidate for candidate in candidates if candidate.prediction.ttft > seconds]
    candidates[:] = [*in_time, *late]
    return IN_TIME


def _load(state: EndpointState) -> float:
    """Requests in flight by how fast they are answered: what a further answer shares the endpoint with."""
    return state.ledger.in_flight * state.decoding.tpot
