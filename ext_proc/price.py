"""What placing a request costs: its own time to first token, and what it does to everybody else.

Greedy prediction answers this request soonest and forgets those that come after it. Every term here is in
seconds of somebody's waiting, so they add up. Formulas follow M/G/1 queues; weights are from experiments on
the simulator (docs/benchmarks.md says what they give, docs/architecture.md what each is for).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ext_proc.demand import Demand
    from ext_proc.endpoint import EndpointState
    from ext_proc.predict import Prediction
    from ext_proc.request import WorkloadClass

BUSIEST = 0.9
"""Utilization is taken to be at most this: prices grow without bound towards 1, and are estimates."""

QUEUE_PRICE = 1.5
"""Of work that is added while every endpoint has a queue: it delays all that arrive until it is done."""

LOAD_PRICE = 0.3
"""Of work at any time, growing with utilization as queues do: rho / (1 - rho)."""

HELD_PRICE = 0.3
"""Of work that is added while others are held back: they wait for it too, but some for other endpoints."""

BEHIND_PRICE = 0.1
"""Of delaying those that will come to the same endpoint; small, since most can go elsewhere."""

BEHIND_LARGEST = 2.0
"""Mean prefills: a longer one counts as so many, since those behind it will be sent elsewhere."""

STREAM_PRICE = 0.15
"""Of a second that a running stream stands still: users notice less than a late first token."""

KV_PRICE_SECONDS = 10.0
"""Of filling a whole KV cache, times the square of the share that is filled: short prompts fit anywhere, and
a long one goes where it takes less room, unless it would wait there."""

UNSEEN_PRICE = 0.1
"""Of work that other replicas may have placed at an endpoint of theirs: it may also be elsewhere, and keeping
away from where a prefix is costs more than now and then a queue."""

PATIENCE: dict[WorkloadClass, float] = {"interactive": 1.0, "batch": 0.1}
"""What a second of its own waiting counts for. Batch goes where it is in nobody's way: to what is old or
idle, while interactive requests get the fastest."""

OPTIMISM = 0.5
"""Standard deviations by which an endpoint's rate is hoped to be better: what has not been tried is."""


class Candidate(NamedTuple):
    """One endpoint's prediction and its price in seconds; the sum of the parts is `cost`."""

    prediction: Prediction
    own: float  # this request's waiting, as far as it counts
    later: float  # for those that come later, wherever they go
    behind: float  # for those that will come to this endpoint
    streams: float  # for the answers that are being decoded there
    memory: float  # for the KV cache it takes
    cost: float


class Sums(NamedTuple):
    """What adds up over all candidates; `predict` has brought their rates up to date."""

    rate: float  # tokens of work a second that they can do
    arrivals: float  # a second
    seconds: float  # of prefill that arrive a second
    work: float  # tokens that arrive a second
    endpoints: int

    @classmethod
    def of(cls, states: Sequence[EndpointState], now: float) -> Sums:
        """Summed at `now`."""
        rate = arrivals = seconds = work = 0.0
        for state in states:
            demand = state.demand
            demand.refresh(now)
            rate += state.rates.prefill
            arrivals += demand.arrivals
            seconds += demand.arrivals * demand.service
            work += demand.work
        return cls(rate, arrivals, seconds, work, len(states))


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates together, as one queue."""

    rate: float  # tokens of work a second that they can do
    arrivals: float  # a second
    service: float  # mean seconds of a prefill
    utilization: float  # 0..BUSIEST
    shortest_wait: float  # seconds
    endpoints: int

    @classmethod
    def of(cls, sums: Sums, shortest_wait: float, held_seconds: float) -> Pool:
        """So many seconds of prefill are held back and will go to them, too."""
        rate, arrivals, seconds, work, endpoints = sums
        shortest = shortest_wait + HELD_PRICE * held_seconds / endpoints
        service = seconds / arrivals if arrivals else 0.0
        return cls(rate, arrivals, service, min(BUSIEST, work / rate), shortest, endpoints)

    @property
    def seconds_per_token(self) -> float:
        """What one more token of work costs all that come later.

        While even the shortest queue is so long, all arrivals until it is empty wait longer by the token's
        part of the pool's time; and at any time queues are more likely the busier the pool.
        """
        idle = 1 - self.utilization
        queue = QUEUE_PRICE * self.arrivals * self.shortest_wait / self.rate
        load = LOAD_PRICE * self.utilization * self.endpoints / self.rate
        return (queue + load) / idle


def price(
    states: Sequence[EndpointState],
    predictions: Sequence[Prediction],
    pool: Pool,
    unseen: Sequence[float],
    needed_tokens: float,
    workload_class: WorkloadClass,
) -> list[Candidate]:
    """Every candidate's cost, in the order given.

    `unseen` seconds of work may be at each already, placed by other replicas; the request will take
    `needed_tokens` of KV cache.
    """
    per_token = pool.seconds_per_token
    patience = PATIENCE[workload_class]
    candidates = []
    for state, prediction, hidden in zip(states, predictions, unseen, strict=True):
        prefill = prediction.prefill
        hoped = prefill / (1 + OPTIMISM * state.rates.uncertainty)
        own = patience * (prediction.ttft - prefill + hoped + UNSEEN_PRICE * hidden)
        later = per_token * prediction.work
        behind = _behind(state, prediction)
        streams = STREAM_PRICE * state.costs.stall * len(state.ledger.decodes) * prefill
        memory = memory_price(state, needed_tokens)
        cost = own + later + behind + streams + memory
        candidates.append(Candidate(prediction, own, later, behind, streams, memory, cost))
    return candidates


def _behind(state: EndpointState, prediction: Prediction) -> float:
    """The delay of those that will arrive here before this work is done: M/G/1's busy period."""
    demand = state.demand
    length = min(prediction.prefill, BEHIND_LARGEST * demand.service)
    wait = prediction.prefill_wait + prediction.room_wait
    return BEHIND_PRICE * demand.arrivals * length * (wait + length / 2) / _idle(demand)


def memory_price(state: EndpointState, needed_tokens: float) -> float:
    """Of the share of the KV cache that so many tokens take; 0 where nobody knows its size."""
    kv_tokens = state.load.kv_tokens if state.load is not None else 0
    return KV_PRICE_SECONDS * (needed_tokens / kv_tokens) ** 2 if kv_tokens else 0.0


def behind(state: EndpointState, now: float) -> tuple[float, float]:
    """The same formula's parts that are the endpoint's: the longest prefill, and the factor of the rest."""
    demand = state.demand
    demand.refresh(now)
    return BEHIND_LARGEST * demand.service, BEHIND_PRICE * demand.arrivals / _idle(demand)


def _idle(demand: Demand) -> float:
    """The share of its time that an endpoint has nothing to prefill."""
    return 1 - min(BUSIEST, demand.arrivals * demand.service)
