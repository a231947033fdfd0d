from __future__ import annotations

import random

import pytest

from fleet.ledger import REQUEST_OVERHEAD_SECONDS
from fleet.model import Rate
from fleet.rates import DECAY, OUTLIER_FACTOR, PRIOR_TOKENS, FirstToken, RateLearner

PRIOR = Rate(prefill=1000.0, tpot=0.02)
DELAY = 0.5


def busy_server(learner: RateLearner, rate: float, count: int, start: float = 0.0, seed: int = 1) -> float:
    """Feed `count` first tokens of a server that is never idle; the time it ends."""
    draw = random.Random(seed)
    now = start
    for _ in range(count):
        tokens = draw.uniform(500, 4000)
        now += tokens / rate + REQUEST_OVERHEAD_SECONDS
        learner.observe(FirstToken(at=now, placed_at=start, tokens=tokens))
    learner.settle(now + DELAY)
    return now


def test_starts_from_the_prior() -> None:
    learner = RateLearner(PRIOR, DELAY)
    assert learner.rate(5.0) == Rate(prefill=1000.0, tpot=0.02, at=5.0, observations=0)


@pytest.mark.parametrize("true_rate", [700.0, 1400.0])
def test_learns_the_true_rate_under_a_queue_from_a_prior_that_is_wrong(true_rate: float) -> None:
    learner = RateLearner(PRIOR, DELAY)
    busy_server(learner, true_rate, count=30)
    assert learner.prefill == pytest.approx(true_rate, rel=0.05)
    assert learner.observations == 30


def test_follows_a_slowdown_to_a_third_within_twenty_completions() -> None:
    learner = RateLearner(PRIOR, DELAY)
    now = busy_server(learner, 1000.0, count=50)
    busy_server(learner, 1000.0 / 3, count=20, start=now)
    assert learner.prefill < 1000.0 / 2


def test_waits_for_news_of_earlier_first_tokens_before_it_learns() -> None:
    learner = RateLearner(PRIOR, DELAY)
    learner.observe(FirstToken(at=4.0, placed_at=0.0, tokens=2000))  # heard of first
    learner.settle(4.2)
    assert learner.observations == 0
    learner.observe(FirstToken(at=2.0, placed_at=0.0, tokens=2000))  # but this one was ahead of it
    learner.settle(4.6)
    assert learner.observations == 2
    assert learner.prefill == pytest.approx(1000.0, rel=0.02)


def test_counts_one_wild_observation_for_a_bounded_factor_only() -> None:
    learner = RateLearner(PRIOR, DELAY)
    learner.observe(FirstToken(at=1e6, placed_at=0.0, tokens=1000))
    learner.settle(2e6)
    work = DECAY * PRIOR_TOKENS + 1000
    time = DECAY * PRIOR_TOKENS / 1000 + OUTLIER_FACTOR * 1.0
    assert learner.prefill == pytest.approx(work / time)


def test_learns_nothing_from_tiny_prefills_or_behind_unreported_ones() -> None:
    learner = RateLearner(PRIOR, DELAY)
    learner.observe(FirstToken(at=1.0, placed_at=0.0, tokens=10))
    learner.observe(FirstToken(at=2.0, placed_at=0.0, tokens=5000, learnable=False))
    learner.settle(10.0)
    assert (learner.observations, learner.prefill) == (0, 1000.0)


def test_learns_the_time_per_output_token() -> None:
    learner = RateLearner(PRIOR, DELAY)
    for _ in range(100):
        learner.observe_decode(seconds=4.0, tokens=100)
    learner.observe_decode(seconds=1.0, tokens=0)
    assert learner.tpot == pytest.approx(0.04, rel=0.01)


def test_learns_only_once_the_answer_has_told_how_much_was_computed() -> None:
    learner = RateLearner(PRIOR, DELAY)
    first_token = FirstToken(at=1.0 + REQUEST_OVERHEAD_SECONDS, placed_at=0.0)
    learner.observe(first_token)
    learner.settle(50.0)
    assert learner.observations == 0
    learner.confirm(first_token, tokens=2000)  # a match was predicted that the engine did not have
    assert learner.observations == 1
    assert learner.prefill == pytest.approx((DECAY * PRIOR_TOKENS + 2000) / (DECAY * PRIOR_TOKENS / 1000 + 1))


def test_an_unconfirmed_first_token_still_bounds_the_one_after_it() -> None:
    learner = RateLearner(PRIOR, DELAY)
    learner.observe(FirstToken(at=10.0, placed_at=0.0))
    learner.observe(FirstToken(at=11.0 + REQUEST_OVERHEAD_SECONDS, placed_at=0.0, tokens=1000))
    learner.settle(50.0)
    assert learner.prefill == pytest.approx(1000.0)


def test_one_wild_answer_moves_the_time_per_token_a_bounded_way_only() -> None:
    learner = RateLearner(PRIOR, DELAY)
    learner.observe_decode(seconds=1e6, tokens=10)
    assert learner.tpot <= 0.02 * (1 + 0.05 * OUTLIER_FACTOR)
