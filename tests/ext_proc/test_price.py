from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ext_proc.predict import predict
from ext_proc.price import BUSIEST, UNSEEN_PRICE, Candidate, Pool, Sums, price
from ext_proc.request import RoutingRequest
from fleet.cost_model import CostModel
from fleet.model import Load
from fleet.rates import FirstToken
from tests.ext_proc.small import FAST, SLOW, make_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ext_proc.endpoint import EndpointState
    from ext_proc.predict import Prediction
    from ext_proc.request import WorkloadClass

RATE = 10_000.0
PROMPT = 2_000.0


def priced(
    states: Sequence[EndpointState],
    blocks: Sequence[int] = (),
    *,
    prompt: float = PROMPT,
    workload_class: WorkloadClass = "interactive",
    unseen: Sequence[float] = (),
    now: float = 60.0,
) -> list[Candidate]:
    """The candidates' prices for a prompt of which `blocks` of 10 tokens are at each."""
    asked = RoutingRequest((), prompt, (), 10)
    held = blocks or [0] * len(states)
    predictions = [predict(s, asked, n, 100, now) for s, n in zip(states, held, strict=True)]
    pool = pool_of(states, predictions, 0.0, now)
    return price(states, predictions, pool, unseen or [0.0] * len(states), prompt + 100, workload_class)


def pool_of(
    states: Sequence[EndpointState], predictions: Sequence[Prediction], held_seconds: float, now: float
) -> Pool:
    shortest = min(p.prefill_wait + p.room_wait for p in predictions)
    return Pool.of(Sums.of(states, now), shortest, held_seconds)


def load(state: EndpointState, utilization: float, until: float = 60.0) -> None:
    """Two placements a second for the last minute, of as much work as keeps the endpoint so busy."""
    for n in range(int(2 * until)):
        state.demand.placed(utilization * RATE / 2, utilization / 2, n / 2)


def decode(state: EndpointState, answers: int) -> None:
    for n in range(answers):
        state.ledger.place(f"decode-{n}", 0, 0.0, observable=True)
        state.ledger.first_token(f"decode-{n}", 0.0)


def two(utilization: float = 0.0) -> list[EndpointState]:
    states = [make_state(FAST, RATE), make_state(SLOW, RATE)]
    for state in states:
        load(state, utilization)
    return states


def penalty(candidates: list[Candidate]) -> float:
    """What the second, which misses, costs others more than the first, which does not."""
    hit, miss = candidates
    return (miss.later + miss.behind) - (hit.later + hit.behind)


def test_idle_endpoints_cost_nobody_else_anything() -> None:
    for found in priced([make_state(FAST), make_state(SLOW)], (150, 0)):
        assert (found.later, found.behind, found.streams, found.memory) == (0, 0, 0, 0)
        assert found.cost == found.own > 0


def test_a_miss_is_dearer_while_others_are_held_back() -> None:
    states = two(0.4)
    asked = RoutingRequest((), 1500, (), 10)
    predictions = [predict(s, asked, 0, 100, 60.0) for s in states]
    costs = [pool_of(states, predictions, seconds, 60.0).seconds_per_token for seconds in (0.0, 1.0, 10.0)]
    assert costs[0] < costs[1] < costs[2]


def test_a_miss_is_the_dearer_the_busier_the_pool() -> None:
    penalties = [penalty(priced(two(u), (150, 0))) for u in (0.1, 0.4, 0.7, 0.85)]
    assert penalties == sorted(penalties)
    assert penalties[0] > 0
    assert penalties[-1] > 10 * penalties[0]


def test_work_at_a_nearly_full_pool_costs_as_queues_grow() -> None:
    half, full = (Pool(2 * RATE, 4, 0.2, u, 0.0, 2).seconds_per_token for u in (0.45, 0.9))
    assert full == pytest.approx(half * (0.9 / 0.1) / (0.45 / 0.55))


def test_work_is_dearer_while_every_endpoint_has_a_queue() -> None:
    def later(queued: int) -> float:
        states = two(0.5)
        for state in states[:queued]:
            state.ledger.place("queue", 20_000, 60.0, observable=True)
        return priced(states)[1].later

    assert later(0) == pytest.approx(later(1))  # the other is free: nobody need wait
    assert later(2) > 2 * later(0)


def test_an_overload_has_a_price_that_is_finite() -> None:
    states = two(3.0)
    asked = RoutingRequest((), PROMPT, (), 10)
    pool = pool_of(states, [predict(s, asked, 0, 100, 60.0) for s in states], 0.0, 60.0)
    assert pool.utilization == BUSIEST
    assert pool.arrivals == pytest.approx(4, rel=0.05)
    assert pool.service == pytest.approx(1.5, rel=0.01)
    assert all(found.cost < 100 for found in priced(states))


def test_those_behind_are_delayed_by_a_long_prompt_only_where_some_will_come() -> None:
    busy, idle = make_state(FAST), make_state(SLOW)
    load(busy, 0.5)
    found = priced([busy, idle])
    assert found[0].behind > found[1].behind == 0


def test_a_very_long_prompt_delays_no_more_of_those_behind_than_will_wait_for_it() -> None:
    busy = make_state(FAST)
    load(busy, 0.5)  # prefills of a quarter of a second
    usual, long, longer = (priced([busy], prompt=prompt)[0].behind for prompt in (2_500, 50_000, 200_000))
    assert 0 < usual < long == longer


def test_batch_goes_to_a_slow_idle_endpoint_where_interactive_goes_to_the_fast_busy_one() -> None:
    fast, slow = make_state(FAST, 20_000), make_state(SLOW, 5_000)
    decode(fast, 20)
    for workload_class, chosen in (("interactive", FAST), ("batch", SLOW)):
        found = priced([fast, slow], prompt=6_400, workload_class=workload_class)  # type: ignore[arg-type]
        assert min(found, key=lambda c: c.cost).prediction.address == chosen, workload_class


def test_a_long_prompt_prefers_more_kv_memory_all_else_being_equal() -> None:
    small, large = make_state(FAST), make_state(SLOW)
    for state, blocks in ((small, 10_000), (large, 40_000)):
        state.observe(Load(at=0.0, kv_blocks_max=blocks, tokens_per_block=32), 0.0)
    gains = []
    for prompt in (1_000, 100_000):
        little, much = priced([small, large], prompt=prompt)
        assert little.cost > much.cost
        gains.append(little.cost - much.cost)
    assert gains[1] > 50 * gains[0]


def test_streams_are_priced_by_how_much_they_are_seen_to_stall() -> None:
    costs = CostModel()
    states = [make_state(FAST, costs=costs), make_state(SLOW, costs=costs)]
    decode(states[0], 10)
    assumed = priced(states)[0].streams
    assert priced(states)[1].streams == 0
    for n in range(200):
        costs.observe_stream((-1) ** n, (-1) ** n)  # they stand still
    assert priced(states)[0].streams == pytest.approx(assumed * costs.stall / 0.25)
    assert priced(states)[0].streams > 3 * assumed
    for n in range(1_000):
        costs.observe_stream((-1) ** n, 0)  # they never notice
    assert priced(states)[0].streams < 0.1 * assumed


def test_an_endpoint_is_hoped_to_be_faster_only_until_it_was_tried() -> None:
    tried, untried = make_state(FAST), make_state(SLOW)
    for n in range(60):
        placed, took = float(n), 0.008 + 2_000 / RATE
        tried.rates.observe(FirstToken(placed + took, placed, 2_000, 0))
        tried.rates.settle(placed + 0.9)
    assert tried.rates.prefill == pytest.approx(untried.rates.prefill)
    known, hoped = priced([tried, untried])
    assert known.prediction.ttft == pytest.approx(hoped.prediction.ttft)
    assert hoped.own < known.own
    assert known.own > 0.93 * known.prediction.ttft
    assert hoped.own < 0.86 * hoped.prediction.ttft


def test_what_others_may_have_placed_there_costs_its_waiting() -> None:
    ours, theirs = priced([make_state(FAST), make_state(SLOW)], unseen=(0.0, 0.01))
    assert theirs.cost - ours.cost == pytest.approx(UNSEEN_PRICE * 0.01)


def test_the_parts_add_up() -> None:
    states = two(0.5)
    decode(states[0], 5)
    states[0].observe(Load(at=0.0, kv_blocks_max=10_000, tokens_per_block=32), 0.0)
    found = priced(states)[0]
    parts = (found.own, found.later, found.behind, found.streams, found.memory)
    assert min(parts) > 0
    assert found.cost == pytest.approx(sum(parts))
