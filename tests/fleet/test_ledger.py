from __future__ import annotations

import pytest

from fleet.ledger import REQUEST_OVERHEAD_SECONDS, SLOWDOWN_PER_DECODE, Ledger

RATE = 1000.0  # tokens a second
OVERHEAD = REQUEST_OVERHEAD_SECONDS


def test_waits_for_all_prompts_placed_before() -> None:
    ledger = Ledger(news_delay=0.5)
    ledger.place("a", 1000, now=10.0, observable=True)
    ledger.place("b", 500, now=10.0, observable=True)
    assert ledger.wait_seconds(10.0, RATE) == pytest.approx(1.5 + 2 * OVERHEAD)


def test_credits_the_work_done_since_the_head_began() -> None:
    ledger = Ledger(news_delay=0.5)
    ledger.place("a", 1000, now=10.0, observable=True)
    ledger.place("b", 500, now=10.2, observable=True)
    assert ledger.wait_seconds(10.6, RATE) == pytest.approx(1.5 + 2 * OVERHEAD - 0.6)


def test_believes_no_more_progress_than_would_have_been_heard_of() -> None:
    ledger = Ledger(news_delay=0.5)
    ledger.place("a", 1000, now=10.0, observable=True)
    ledger.place("b", 5000, now=10.0, observable=True)
    long_silent = ledger.wait_seconds(14.0, RATE)
    assert long_silent == pytest.approx(6.0 + 2 * OVERHEAD - (1.0 + OVERHEAD) - 0.5)
    assert ledger.wait_seconds(99.0, RATE) == pytest.approx(long_silent)


def test_a_first_token_ends_that_prefill_and_all_before_it() -> None:
    ledger = Ledger(news_delay=0.5)
    for id_ in "abc":
        ledger.place(id_, 1000, now=10.0, observable=True)
    ledger.first_token("b", at=12.0)
    assert list(ledger.prefills) == ["c"]
    assert ledger.decodes == {"a", "b"}
    slowed = OVERHEAD + 1.0 * (1 + 2 * SLOWDOWN_PER_DECODE)
    assert ledger.wait_seconds(12.25, RATE) == pytest.approx(slowed - 0.25)


def test_news_that_comes_out_of_order_does_not_turn_time_back() -> None:
    ledger = Ledger(news_delay=0.5)
    for id_ in "abc":
        ledger.place(id_, 1000, now=10.0, observable=True)
    ledger.first_token("b", at=12.0)
    ledger.first_token("a", at=11.0)
    assert ledger.head_since == 12.0


def test_counts_an_answer_that_is_not_streamed_as_decoding_once_its_time_is_over() -> None:
    ledger = Ledger(news_delay=0.5)
    ledger.place("whole", 1000, now=10.0, observable=False)
    ledger.place("next", 1000, now=10.0, observable=True)
    assert ledger.wait_seconds(11.5, RATE) < 1.0
    assert ledger.decodes == {"whole"}
    assert list(ledger.prefills) == ["next"]


def test_owes_nothing_once_every_request_is_over_however_it_ended() -> None:
    ledger = Ledger(news_delay=0.5)
    for id_ in "abcd":
        ledger.place(id_, 1000, now=10.0, observable=id_ != "d")
    ledger.first_token("a", at=11.0)
    for id_ in "cabd":
        ledger.release(id_, at=12.0)
    ledger.release("never-placed", at=12.0)
    assert ledger.in_flight == 0
    assert ledger.tokens == 0.0
    assert ledger.wait_seconds(12.0, RATE) == 0.0


def test_idle_time_before_a_placement_is_no_credit() -> None:
    ledger = Ledger(news_delay=0.5)
    ledger.place("a", 1000, now=10.0, observable=True)
    ledger.release("a", at=11.0)
    ledger.place("b", 1000, now=50.0, observable=True)
    assert ledger.wait_seconds(50.0, RATE) == pytest.approx(1.0 + OVERHEAD)
