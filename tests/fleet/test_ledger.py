from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cost_model import SLOWDOWN_PER_DECODE, CostModel
from fleet.ledger import REQUEST_OVERHEAD_SECONDS, SLOWEST, UNCERTAINTY, Ledger

RATE = 1000.0  # tokens a second
OVERHEAD = REQUEST_OVERHEAD_SECONDS
SECOND = RATE * (1 - OVERHEAD)  # work that takes one second with its overhead, beside no decodes
DELAY = 0.5


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(DELAY, CostModel())


def place(ledger: Ledger, ids: str, now: float, *, work: float = SECOND, observable: bool = True) -> None:
    for id_ in ids:
        ledger.place(id_, work, now, observable=observable)


def expected_wait(left: float, since_news: float) -> float:
    """E max(0, X) of a normal X around `left`, by the formula of `Ledger.wait_seconds`."""
    spread = UNCERTAINTY * since_news
    return (left + math.sqrt(left**2 + 0.64 * spread**2)) / 2


def test_nobody_waits_where_nothing_was_placed(ledger: Ledger) -> None:
    assert ledger.wait_seconds(10.0, RATE) == 0.0
    assert ledger.in_flight == 0


def test_the_wait_for_a_long_queue_is_the_sum_of_its_prefills(ledger: Ledger) -> None:
    for number in range(20):
        ledger.place(str(number), 100.0 * number, now=10.0, observable=True)
    total = 20 * OVERHEAD + 100.0 * sum(range(20)) / RATE
    assert ledger.wait_seconds(10.0, RATE) == pytest.approx(total, rel=0.02)


def test_the_wait_follows_the_rate_that_is_asked_with(ledger: Ledger) -> None:
    place(ledger, "abcd", now=10.0)
    at_full_rate = ledger.wait_seconds(10.0, RATE)
    assert ledger.wait_seconds(10.0, RATE / 2) == pytest.approx(2 * at_full_rate, rel=0.02)
    assert ledger.wait_seconds(10.0, RATE) == at_full_rate


def test_credits_the_work_done_since_the_head_began(ledger: Ledger) -> None:
    place(ledger, "abcdefghij", now=10.0)
    assert ledger.wait_seconds(11.0, RATE) == pytest.approx(expected_wait(9.0, since_news=10.0))


def test_far_from_the_believed_end_the_wait_is_exact_and_close_to_it_above_zero(ledger: Ledger) -> None:
    place(ledger, "a", now=10.0, work=SECOND)
    assert ledger.wait_seconds(10.0, RATE) == pytest.approx(1.0, rel=0.02)
    at_end = ledger.wait_seconds(11.0, RATE)
    assert at_end == pytest.approx(UNCERTAINTY / math.sqrt(2 * math.pi), rel=0.01)
    assert 0.0 < ledger.wait_seconds(11.2, RATE) < at_end < ledger.wait_seconds(10.8, RATE)


def test_uncertainty_is_of_the_work_since_the_last_news(ledger: Ledger) -> None:
    place(ledger, "abcdefghij", now=10.0)
    without_news = ledger.wait_seconds(20.0, RATE)
    ledger.first_token("i", at=19.0)
    for id_ in "abcdefghi":  # so that they do not slow the last one down
        ledger.release(id_, at=19.0)
    assert ledger.wait_seconds(20.0, RATE) == pytest.approx(expected_wait(0.0, since_news=1.0))
    assert ledger.wait_seconds(20.0, RATE) < without_news / 2


def test_an_idle_gap_is_not_credited_to_those_that_come_later(ledger: Ledger) -> None:
    place(ledger, "a", now=10.0)
    ledger.first_token("a", at=11.0)
    ledger.release("a", at=12.0)
    place(ledger, "bc", now=50.0)
    assert ledger.wait_seconds(50.0, RATE) == pytest.approx(expected_wait(2.0, since_news=2.0))


def test_a_queue_believed_to_be_empty_gives_no_credit_to_the_next(ledger: Ledger) -> None:
    place(ledger, "a", now=10.0)
    place(ledger, "bcdefghij", now=11.3)  # nobody has heard of the first one's end yet
    assert ledger.wait_seconds(11.3, RATE) == pytest.approx(9.0, rel=0.03)


@pytest.mark.parametrize("at", [10.5, 11.0, 11.4])
def test_a_first_token_that_comes_early_or_late_shifts_the_rest(ledger: Ledger, at: float) -> None:
    place(ledger, "abcdefghijk", now=10.0)
    ledger.wait_seconds(10.1, RATE)
    ledger.first_token("a", at)
    ledger.release("a", at)
    assert ledger.wait_seconds(11.5, RATE) == pytest.approx(expected_wait(at + 10 - 11.5, since_news=10.0))


def test_a_first_token_ends_that_prefill_and_all_before_it(ledger: Ledger) -> None:
    place(ledger, "abcdef", now=10.0)
    ledger.first_token("b", at=12.0)
    assert list(ledger.prefills) == list("cdef")
    assert ledger.decodes == {"a", "b"}
    each = OVERHEAD + SECOND / RATE * (1 + 2 * SLOWDOWN_PER_DECODE)
    assert ledger.wait_seconds(12.25, RATE) == pytest.approx(
        expected_wait(4 * each - 0.25, since_news=4 * each)
    )


def test_news_that_comes_out_of_order_or_of_strangers_does_not_turn_time_back(ledger: Ledger) -> None:
    place(ledger, "abc", now=10.0)
    ledger.first_token("b", at=12.0)
    before = ledger.wait_seconds(12.0, RATE)
    ledger.first_token("a", at=11.0)
    ledger.first_token("stranger", at=99.0)
    assert ledger.wait_seconds(12.0, RATE) == before


def test_a_placement_heard_of_late_takes_its_place_by_time(ledger: Ledger) -> None:
    place(ledger, "ac", now=10.0)
    ledger.wait_seconds(10.2, RATE)
    place(ledger, "d", now=10.2)
    place(ledger, "b", now=10.1)
    assert list(ledger.prefills) == list("acbd")
    assert ledger.wait_seconds(10.2, RATE) == pytest.approx(expected_wait(3.8, since_news=4.0))
    ledger.first_token("b", at=13.0)
    assert list(ledger.prefills) == ["d"]


def test_answers_that_are_not_streamed_count_as_decoding_once_their_prefill_is_over(ledger: Ledger) -> None:
    place(ledger, "uvw", now=10.0, observable=False)
    place(ledger, "x", now=10.0)
    ledger.wait_seconds(11.5, RATE)
    assert ledger.decodes == {"u"}
    ledger.wait_seconds(20.0, RATE)
    assert ledger.decodes == {"u", "v", "w"}
    assert list(ledger.prefills) == ["x"]


def test_what_nobody_will_report_waits_behind_what_somebody_will(ledger: Ledger) -> None:
    place(ledger, "a", now=10.0)
    place(ledger, "u", now=10.0, observable=False)
    ledger.wait_seconds(20.0, RATE)
    assert list(ledger.prefills) == ["a", "u"]
    ledger.first_token("a", at=20.0)
    ledger.release("a", at=20.0)
    assert ledger.wait_seconds(20.1, RATE) == pytest.approx(expected_wait(0.9, since_news=1.0))


def test_an_endpoint_with_only_unreported_work_is_idle_once_that_is_over(ledger: Ledger) -> None:
    place(ledger, "uv", now=10.0, observable=False)
    assert ledger.wait_seconds(13.0, RATE) == 0.0
    assert ledger.in_flight == 2


def test_releasing_the_head_lets_the_next_begin_then(ledger: Ledger) -> None:
    place(ledger, "abcdef", now=10.0)
    ledger.release("a", at=10.4)
    assert ledger.wait_seconds(10.4, RATE) == pytest.approx(expected_wait(5.0, since_news=5.0))


def test_releasing_one_in_the_middle_takes_its_own_work_away(ledger: Ledger) -> None:
    place(ledger, "abcdef", now=10.0)
    ledger.release("c", at=10.4)
    assert ledger.wait_seconds(10.4, RATE) == pytest.approx(expected_wait(4.6, since_news=5.0))


def test_releasing_a_decode_speeds_the_prefills_up(ledger: Ledger) -> None:
    place(ledger, "abcdef", now=10.0)
    ledger.first_token("a", at=11.0)
    slowed = ledger.wait_seconds(11.0, RATE)
    ledger.release("a", at=11.0)
    assert ledger.wait_seconds(11.0, RATE) == pytest.approx(expected_wait(5.0, since_news=5.0))
    assert ledger.wait_seconds(11.0, RATE) < slowed


def test_a_silent_head_is_believed_on_time_until_news_of_it_is_due(ledger: Ledger) -> None:
    place(ledger, "abcdefghij", now=10.0)
    assert ledger.wait_seconds(11.0 + DELAY, RATE) == pytest.approx(expected_wait(8.5, since_news=10.0))


def test_the_wait_grows_with_the_silence_of_an_overdue_head(ledger: Ledger) -> None:
    place(ledger, "abcd", now=10.0)
    waits = [ledger.wait_seconds(11.0 + DELAY + late, RATE) for late in (0.5, 1.0, 2.0, 5.0, 50.0)]
    assert waits == sorted(waits)
    assert waits[0] > 3.0  # it was to be 1.5 s by now, had the head ended in time
    assert waits[2] == pytest.approx(3 * 3.0 + 1.0, rel=0.02)  # a third of the speed, and half as late again


def test_an_overdue_head_makes_those_behind_it_slower_by_a_bounded_factor(ledger: Ledger) -> None:
    place(ledger, "abcd", now=10.0)
    late = 1e4
    wait = ledger.wait_seconds(11.0 + DELAY + late, RATE)
    assert wait == pytest.approx(SLOWEST * 3.0 + late / 2, rel=1e-3)


def test_news_of_an_overdue_head_ends_the_suspicion(ledger: Ledger) -> None:
    place(ledger, "abcd", now=10.0)
    assert ledger.wait_seconds(20.0, RATE) > 20.0
    ledger.first_token("a", at=19.9)
    ledger.release("a", at=19.9)
    assert ledger.wait_seconds(20.0, RATE) == pytest.approx(2.9, rel=0.03)


def test_owes_nothing_once_every_request_is_over_however_it_ended(ledger: Ledger) -> None:
    place(ledger, "abc", now=10.0)
    place(ledger, "d", now=10.0, observable=False)
    ledger.first_token("a", at=11.0)
    for id_ in "cabd":
        ledger.release(id_, at=12.0)
    ledger.release("never-placed", at=12.0)
    assert ledger.in_flight == 0
    assert ledger.wait_seconds(12.0, RATE) == 0.0


Step = tuple[str, int, float, float, bool, float]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["place", "place", "first_token", "release", "look"]),
        st.integers(0, 11),  # which request
        st.floats(0.0, 3.0),  # seconds since the step before
        st.floats(0.0, 20_000.0),  # work
        st.booleans(),  # observable
        st.sampled_from([0.0, 0.0, 0.1, 2.0]),  # heard of so many seconds late
    ),
    max_size=40,
)


def perform(ledger: Ledger, step: Step, now: float) -> None:
    action, number, _, work, observable, late = step
    id_ = str(number)
    if action == "place" and id_ not in ledger.prefills and id_ not in ledger.decodes:
        ledger.place(id_, work, now - late, observable=observable)
    elif action == "first_token" and id_ in ledger.prefills and ledger.prefills[id_].observable:
        ledger.first_token(id_, now)
    elif action == "release":
        ledger.release(id_, now)


@settings(max_examples=150)
@given(STEPS, st.sampled_from([200.0, 1000.0, 7000.0]))
def test_reckoning_step_by_step_agrees_with_reckoning_afresh(steps: list[Step], rate: float) -> None:
    ledger = Ledger(DELAY, CostModel())
    now = 100.0
    for step in steps:
        now += step[2]
        perform(ledger, step, now)
        fresh = Ledger(
            DELAY,
            ledger.costs,
            dict(ledger.prefills),
            set(ledger.decodes),
            unobservable=sum(not prefill.observable for prefill in ledger.prefills.values()),
            _began_at=ledger._began_at,
        )
        wait = ledger.wait_seconds(now, rate)
        assert wait == pytest.approx(fresh.wait_seconds(now, rate), rel=1e-9, abs=1e-9)
        assert wait >= 0.0
        assert (ledger.prefills.keys(), ledger.decodes) == (fresh.prefills.keys(), fresh.decodes)
        owed = sum(prefill.work for prefill in ledger.prefills.values())
        assert ledger.owed == pytest.approx(owed, abs=1e-6)


@settings(max_examples=80)
@given(STEPS)
def test_is_empty_once_all_that_was_placed_is_released(steps: list[Step]) -> None:
    ledger = Ledger(DELAY, CostModel())
    now = 100.0
    for step in steps:
        now += step[2]
        perform(ledger, step, now)
        if step[0] == "look":
            ledger.wait_seconds(now, RATE)
    for number in range(12):
        ledger.release(str(number), now)
    assert ledger.in_flight == 0
    assert ledger.wait_seconds(now, RATE) == 0.0


def test_a_thousand_unreported_prefills_are_settled_in_one_walk() -> None:
    ledger = Ledger(DELAY, CostModel())
    for n in range(1000):
        ledger.place(str(n), 100.0, 0.0, observable=False)
    walks = 0

    class Watched(CostModel):
        def slowdown(self, streams: int) -> float:
            nonlocal walks
            walks += 1
            return super().slowdown(streams)

    ledger.costs = Watched()
    assert ledger.wait_seconds(1e6, 1000.0) == 0.0
    assert (len(ledger.prefills), len(ledger.decodes), ledger.owed) == (0, 1000, 0.0)
    assert walks < 1100


def test_what_was_given_up_for_lost_does_not_make_those_behind_it_wait_anew(ledger: Ledger) -> None:

    for n in range(30):
        ledger.place(str(n), 4_920.0, float(n), observable=True)  # half a second each, one a second, no news
    assert ledger.queue_seconds(40.0, 10_000) == 0.0
    ledger.release("0", 40.0)
    ledger.release("1", 40.0)
    assert ledger.queue_seconds(40.0, 10_000) == 0.0


def test_what_is_cancelled_in_its_prefill_makes_room_at_once(ledger: Ledger) -> None:

    ledger.place("long", 100_000.0, 0.0, observable=True)
    ledger.place("next", 10_000.0, 0.0, observable=True)
    ledger.wait_seconds(1.0, 10_000)
    ledger.release("long", 1.0)
    assert ledger.queue_seconds(1.0, 10_000) == pytest.approx(1.008)


def test_the_kv_cache_that_requests_in_flight_take_is_given_back_when_they_end(ledger: Ledger) -> None:

    ledger.place("a", 1000.0, 0.0, observable=True, kv_tokens=1200.0)
    ledger.place("b", 1000.0, 0.0, observable=True, kv_tokens=300.5)
    ledger.first_token("a", 0.2)
    assert ledger.kv_tokens == 1500.5
    ledger.release("a", 1.0)
    assert ledger.kv_tokens == 300.5
    ledger.release("b", 1.0)
    assert ledger.kv_tokens == 0.0
