from __future__ import annotations

import random

from ext_proc import choice
from ext_proc.choice import AT_HOME, CHEAPEST, IN_TIME, LEAST_BUSY
from ext_proc.predict import Prediction
from ext_proc.price import Candidate
from tests.ext_proc.small import FAST, SLOW, THIRD, make_state

STATES = (FAST, SLOW, THIRD)
PREFILL = 0.1  # seconds; 5 % of it are 5 ms


def candidate(address: str, cost: float) -> Candidate:
    prediction = Prediction(address, 0, 0, 1000, 1000, 0, 0, 0, PREFILL, 0, 0, 10_000, cost)
    return Candidate(prediction, cost, 0, 0, 0, 0, cost)


def ordered(
    costs: tuple[float, ...], home: str | None = None, busy: tuple[int, ...] = (0, 0, 0), seed: int = 0
) -> tuple[list[str], str]:
    """Addresses best first and why, for endpoints of these costs with so many requests in flight."""
    states = {address: make_state(address) for address in STATES}
    for state, requests in zip(states.values(), busy, strict=True):
        for n in range(requests):
            state.ledger.place(str(n), 0, 0.0, observable=True)
    candidates = [candidate(address, cost) for address, cost in zip(STATES, costs, strict=False)]
    why = choice.order(candidates, states, home, random.Random(seed))
    return [found.prediction.address for found in candidates], why


def test_the_cheapest_is_first_and_the_others_follow_by_cost() -> None:
    assert ordered((0.3, 0.1, 0.2)) == ([SLOW, THIRD, FAST], CHEAPEST)
    assert ordered((0.3,)) == ([FAST], CHEAPEST)


def test_neither_session_nor_load_matter_beside_cost() -> None:
    assert ordered((0.3, 0.1, 0.2), home=FAST, busy=(0, 9, 0)) == ([SLOW, THIRD, FAST], CHEAPEST)


def test_among_equals_the_session_stays_at_home_even_if_it_is_busier() -> None:
    for seed in range(5):
        found, why = ordered((0.100, 0.103, 0.2), home=SLOW, busy=(0, 5, 0), seed=seed)
        assert (found, why) == ([SLOW, FAST, THIRD], AT_HOME)


def test_among_equals_the_least_busy_is_first() -> None:
    for seed in range(5):
        found, why = ordered((0.100, 0.101, 0.103), home="elsewhere", busy=(3, 2, 1), seed=seed)
        assert (found, why) == ([THIRD, FAST, SLOW], LEAST_BUSY)


def test_busy_is_by_how_fast_an_endpoint_answers() -> None:
    states = {FAST: make_state(FAST), SLOW: make_state(SLOW)}
    for n in range(3):
        states[FAST].ledger.place(str(n), 0, 0.0, observable=True)
    states[SLOW].ledger.place("one", 0, 0.0, observable=True)
    states[SLOW].decoding.tpot *= 4
    candidates = [candidate(SLOW, 0.1), candidate(FAST, 0.1)]
    choice.order(candidates, states, None, random.Random(0))
    assert candidates[0].prediction.address == FAST


def test_among_equally_busy_equals_it_draws_by_seed() -> None:
    firsts = [ordered((0.1, 0.1, 0.1), busy=(1, 1, 2), seed=seed)[0][0] for seed in range(40)]
    assert set(firsts) == {FAST, SLOW}
    assert 10 < firsts.count(FAST) < 30
    assert firsts == [ordered((0.1, 0.1, 0.1), busy=(1, 1, 2), seed=seed)[0][0] for seed in range(40)]


def test_costs_differ_beyond_a_twentieth_of_the_prefill() -> None:
    assert ordered((0.1, 0.107, 0.2), home=SLOW)[0][0] == FAST
    assert ordered((0.1, 0.105, 0.2), home=SLOW)[0][0] == SLOW


def test_those_that_answer_in_time_come_first_by_their_cost_and_the_others_after_them() -> None:
    candidates = [candidate(FAST, 0.3), candidate(SLOW, 0.2), candidate(THIRD, 0.1)]
    assert choice.prefer_in_time(candidates, 0.25) == IN_TIME
    assert [c.prediction.address for c in candidates] == [SLOW, THIRD, FAST]
    for seconds in (0.05, 0.2, 1.0):  # nobody can, the best can, all can
        assert choice.prefer_in_time(candidates, seconds) is None
        assert [c.prediction.address for c in candidates] == [SLOW, THIRD, FAST]
