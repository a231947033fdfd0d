from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cost_model import CostModel
from fleet.ledger import REQUEST_OVERHEAD_SECONDS
from fleet.model import Rate
from fleet.rates import (
    DECAY,
    LEAST_TOKENS,
    OUTLIER_FACTOR,
    PRIOR_SPREAD,
    PRIOR_TOKENS,
    RUN,
    FirstToken,
    RateLearner,
)

PRIOR = Rate(prefill=1000.0, tpot=0.02)
DELAY = 0.5


@pytest.fixture
def learner() -> RateLearner:
    return new_learner()


def new_learner() -> RateLearner:
    return RateLearner(PRIOR, DELAY, CostModel())


def seconds(tokens: float, rate: float) -> float:
    return tokens / rate + REQUEST_OVERHEAD_SECONDS


def prefill(tokens: float, rate: float, began: float, *, predicted: float | None = None) -> FirstToken:
    """A prompt of `tokens` that was placed and began at `began`; `predicted` to be so many."""
    uncached = tokens if predicted is None else predicted
    return FirstToken(began + seconds(tokens, rate), began, uncached, matched=0.0)


def busy_server(
    learner: RateLearner,
    rate: float,
    count: int,
    start: float = 0.0,
    *,
    tokens: float | None = None,
    confirmed: bool = False,
) -> float:
    """Feed `count` first tokens of a server that is never idle: all placed at `start`; the time it ends."""
    draw = random.Random(1)
    now = start
    for _ in range(count):
        work = tokens or draw.uniform(500, 4000)
        now += seconds(work, rate) * draw.lognormvariate(0, 0.1 if tokens is None else 0.0)
        first_token = FirstToken(now, start, work, matched=0.0)
        learner.observe(first_token)
        if confirmed:
            learner.settle(now + DELAY)
            learner.confirm(first_token, work, 0.0)
    learner.settle(now + DELAY)
    return now


def after(*first_tokens: FirstToken) -> RateLearner:
    learner = new_learner()
    for first_token in first_tokens:
        learner.observe(first_token)
    learner.settle(1e6)
    return learner


def test_starts_from_the_prior(learner: RateLearner) -> None:
    assert (learner.prefill, learner.observations) == (1000.0, 0)
    assert learner.uncertainty == PRIOR_SPREAD


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("true_rate", [600.0, 714.0, 1400.0, 1667.0])
def test_learns_the_true_rate_under_a_queue_from_a_prior_that_is_wrong(
    learner: RateLearner, true_rate: float, confirmed: bool
) -> None:
    busy_server(learner, true_rate, count=30, confirmed=confirmed)
    assert learner.prefill == pytest.approx(true_rate, rel=0.05)


def test_learns_from_busy_time_whether_the_server_queues_or_idles(learner: RateLearner) -> None:
    draw = random.Random(4)
    arrival = free = 0.0
    for _ in range(60):
        tokens = draw.uniform(500, 4000)
        arrival += draw.expovariate(0.3)
        free = max(free, arrival) + seconds(tokens, 700.0)
        learner.observe(FirstToken(free, arrival, tokens, matched=0.0))
    learner.settle(free + DELAY)
    assert learner.prefill == pytest.approx(700.0, rel=0.02)


def test_beside_decodes_and_deep_in_a_context_the_same_rate_takes_longer() -> None:
    costs = CostModel()
    costs.context, costs.decode = 1e-5, 0.02
    learner = RateLearner(PRIOR, DELAY, costs)
    end = 0.0
    for _ in range(40):
        took = seconds(costs.work(20_000, 2000) * costs.slowdown(10), 1000.0)
        learner.observe(FirstToken(end + took, 0.0, 2000, matched=20_000, decodes=10))
        end += took
    learner.settle(end + DELAY)
    assert learner.prefill == pytest.approx(1000.0)


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("factor", [1 / 3, 3.0])
def test_follows_a_change_within_twenty_completions(
    learner: RateLearner, factor: float, confirmed: bool
) -> None:
    now = busy_server(learner, 1000.0, count=60, confirmed=confirmed)
    busy_server(learner, 1000.0 * factor, count=20, start=now, confirmed=confirmed)
    assert learner.prefill == pytest.approx(1000.0 * factor, rel=0.1)


def test_one_wild_observation_moves_the_rate_a_little_and_is_no_change(learner: RateLearner) -> None:
    now = busy_server(learner, 1000.0, count=60, tokens=2000)
    sure = learner.uncertainty
    wild = prefill(2000, 10.0, began=now)
    learner.observe(wild)
    learner.settle(wild.at + DELAY)
    learner.confirm(wild, 2000, 0.0)
    assert 800.0 < learner.prefill < 1000.0
    assert learner.uncertainty <= sure


def test_counts_one_wild_observation_for_a_bounded_factor_only() -> None:
    learner = after(FirstToken(1e5, 0.0, 1000, matched=0.0))
    work = DECAY * PRIOR_TOKENS + 1000
    time = DECAY * PRIOR_TOKENS / 1000 + OUTLIER_FACTOR * 1.0
    assert learner.prefill == pytest.approx(work / time)


def test_an_observation_and_its_confirmation_are_one_in_a_row(learner: RateLearner) -> None:
    now = busy_server(learner, 1000.0, count=60, tokens=2000)
    for _ in range(RUN - 1):
        slow = prefill(2000, 400.0, began=now)
        learner.observe(slow)
        learner.settle(slow.at + DELAY)
        learner.confirm(slow, 2000, 0.0)
        now = slow.at
    assert learner.prefill > 800.0
    busy_server(learner, 400.0, count=1, start=now, tokens=2000)
    assert learner.prefill == pytest.approx(400.0, rel=0.01)


def test_waits_for_news_of_earlier_first_tokens_before_it_learns(learner: RateLearner) -> None:
    learner.observe(FirstToken(4.0, 0.0, 2000, matched=0.0))  # heard of first
    learner.settle(4.2)
    assert learner.observations == 0
    learner.observe(FirstToken(2.0, 0.0, 2000, matched=0.0))  # but this one was ahead of it
    learner.settle(4.6)
    assert learner.observations == 2
    assert learner.prefill == pytest.approx(1000.0, rel=0.02)


def test_news_that_comes_too_late_teaches_nothing(learner: RateLearner) -> None:
    busy_server(learner, 1000.0, count=5, tokens=2000)  # ends after 10 s
    before, busy = learner.prefill, learner.busy_seconds
    learner.observe(FirstToken(6.5, 0.0, 2000, matched=0.0))
    learner.settle(20.0)
    assert (learner.prefill, learner.busy_seconds) == (before, busy)


def test_an_early_report_of_a_prefill_that_teaches_nothing_still_bounds_the_one_after_it() -> None:
    unknown = FirstToken(10.0, 0.0, 0.0, matched=0.0, learnable=False)
    learner = after(unknown, FirstToken(10.0 + seconds(1000, 1000.0), 0.0, 1000, matched=0.0))
    assert learner.observations == 1
    assert learner.prefill == pytest.approx(1000.0)


def test_learns_nothing_from_tiny_prefills_or_behind_unreported_ones() -> None:
    learner = after(
        FirstToken(1.0, 0.0, LEAST_TOKENS - 1, matched=5000.0),
        FirstToken(2.0, 0.0, 5000, matched=0.0, learnable=False),
    )
    assert (learner.observations, learner.prefill, learner.uncertainty) == (0, 1000.0, PRIOR_SPREAD)


def test_what_cannot_be_learned_from_stays_so_when_it_is_confirmed(learner: RateLearner) -> None:
    first_token = FirstToken(9.0, 0.0, 5000, matched=0.0, learnable=False)
    learner.observe(first_token)
    learner.settle(20.0)
    learner.confirm(first_token, 5000, 0.0)
    assert (learner.observations, learner.prefill) == (0, 1000.0)


def test_knows_how_long_an_endpoint_was_busy_before_each_first_token() -> None:
    first, second = FirstToken(12.0, 10.0, 100, matched=0.0), FirstToken(15.0, 11.0, 100, matched=0.0)
    after_idling = FirstToken(21.0, 20.5, 100, matched=0.0)
    learner = after(after_idling, second, first)
    assert [each.busy for each in (first, second, after_idling)] == [2.0, 3.0, 0.5]
    assert [each.busy_before for each in (first, second, after_idling)] == [2.0, 5.0, 5.5]
    assert learner.busy_seconds == 5.5


@pytest.mark.parametrize("when", ["before it counts", "at once", "after others"])
def test_confirming_puts_right_what_the_predicted_match_got_wrong(when: str) -> None:
    rate, start, others = 800.0, 100.0, [prefill(2000, 800.0, 200.0 + 10 * n) for n in range(3)]
    learner, informed = new_learner(), new_learner()
    wrong, right = prefill(3000, rate, start, predicted=2000), prefill(3000, rate, start)
    busy_server(learner, rate, count=5)
    busy_server(informed, rate, count=5)
    for target, first_token in ((learner, wrong), (informed, right)):
        target.observe(first_token)
        if target is learner and when == "before it counts":
            learner.confirm(wrong, 3000, 0.0)
        target.settle(150.0)
        if target is learner and when == "at once":
            learner.confirm(wrong, 3000, 0.0)
        for other in others:
            target.observe(prefill(2000, rate, other.placed_at))
        target.settle(300.0)
    if when == "after others":
        assert learner.prefill < 0.97 * informed.prefill
        learner.confirm(wrong, 3000, 0.0)
    assert learner.prefill == pytest.approx(informed.prefill, rel=0.01)


def test_a_prompt_that_was_cached_after_all_teaches_nothing() -> None:
    first_token = prefill(100, 800.0, 100.0, predicted=3000)
    learner = after(prefill(2000, 800.0, 50.0))
    before = learner.prefill
    learner.observe(first_token)
    learner.settle(2e6)
    assert learner.prefill > before
    learner.confirm(first_token, 100, 2900)
    assert learner.prefill == pytest.approx(before)


def test_revoking_leaves_the_rate_as_if_it_had_never_been() -> None:
    kept = [prefill(2000, rate, 10.0 * n) for n, rate in enumerate((700.0, 900.0, 800.0))]
    false = prefill(4000, 1400.0, 50.0)
    without = after(*kept).prefill
    learner = after(*kept, false)
    assert learner.prefill > 1.1 * without
    learner.revoke(false)
    assert learner.prefill == pytest.approx(without)
    learner.revoke(false)
    assert learner.prefill == pytest.approx(without)


def test_what_is_revoked_before_it_counts_never_does(learner: RateLearner) -> None:
    false = prefill(4000, 100.0, 0.0)
    learner.observe(false)
    learner.revoke(false)
    learner.settle(1e6)
    assert (learner.prefill, learner.observations) == (1000.0, 0)


def test_revoking_what_a_change_has_replaced_does_not_touch_the_rate() -> None:
    old = [prefill(2000, 1000.0, 10.0 * n) for n in range(3)]
    slow = [prefill(2000, 300.0, 100.0 + 10 * n) for n in range(RUN)]
    learner = after(*old, *slow)
    assert learner.prefill == pytest.approx(300.0)
    learner.revoke(old[-1])
    assert learner.prefill == pytest.approx(300.0)


def test_revoking_all_that_is_left_keeps_the_last_rate() -> None:
    slow = [prefill(2000, 300.0, 10.0 * n) for n in range(RUN)]
    learner = after(*slow)
    for first_token in slow:
        learner.revoke(first_token)
    assert learner.prefill == pytest.approx(300.0)
    busy_server(learner, 300.0, count=1, start=500.0)
    assert learner.prefill == pytest.approx(300.0, rel=0.25)


def test_a_rate_that_is_told_counts_as_the_prior_does_and_is_learned_from_there() -> None:
    learner = after(*(prefill(2000, 1000.0, 10.0 * n) for n in range(20)))
    learner.believe(500.0)
    assert learner.prefill == 500.0
    busy_server(learner, 600.0, count=30, start=2e6)
    assert learner.prefill == pytest.approx(600.0, rel=0.05)


def test_uncertainty_shrinks_with_observations_and_returns_with_a_change(learner: RateLearner) -> None:
    seen = [learner.uncertainty]
    now = 0.0
    for _ in range(10):
        now = busy_server(learner, 1000.0, count=5, start=now)
        seen.append(learner.uncertainty)
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen)
    assert seen[-1] < PRIOR_SPREAD / 2
    busy_server(learner, 300.0, count=RUN, start=now, tokens=2000)
    assert learner.uncertainty > 1.5 * seen[-1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 3.0), st.floats(0.0, 1.0), st.floats(10.0, 8000.0)), min_size=1, max_size=30
    )
)
def test_the_order_of_reports_within_the_news_delay_does_not_matter(
    seen: list[tuple[float, float, float]],
) -> None:
    learner, at = new_learner(), 0.0
    reports, in_order = [], []
    for gap, lag, tokens in seen:
        at += gap
        in_order.append(FirstToken(at, 0.0, tokens, matched=0.0))
        reports.append((at + lag * DELAY * 0.99, FirstToken(at, 0.0, tokens, matched=0.0)))
    for now, first_token in sorted(reports, key=lambda report: report[0]):
        learner.settle(now)
        learner.observe(first_token)
    learner.settle(at + 2 * DELAY)
    expected = after(*in_order)
    assert learner.prefill == pytest.approx(expected.prefill)
    assert learner.observations == expected.observations
    assert learner.busy_seconds == pytest.approx(expected.busy_seconds)
