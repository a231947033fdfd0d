from __future__ import annotations

import random

import pytest

from fleet.cost_model import STALL, CostModel
from fleet.decoding import SHARE, DecodeLearner
from fleet.rates import OUTLIER_FACTOR

PRIOR = 0.02  # seconds per output token


@pytest.fixture
def costs() -> CostModel:
    return CostModel()


@pytest.fixture
def learner(costs: CostModel) -> DecodeLearner:
    return DecodeLearner(PRIOR, costs)


def observe_streams(learner: DecodeLearner, stall: float, *, known: bool = True) -> None:
    """Streams at 0.03 s a token, some of which see much prefill beside them, which stalls them so far."""
    draw = random.Random(2)
    for _ in range(300):
        tokens = draw.randint(50, 400)
        prefill = draw.uniform(0.0, 0.08) * tokens
        seconds = (0.03 * tokens + stall * prefill) * draw.lognormvariate(0, 0.05)
        learner.observe(seconds, tokens, prefill if known else None)


def test_starts_from_the_prior(learner: DecodeLearner) -> None:
    assert learner.tpot == PRIOR


def test_learns_the_time_per_output_token(learner: DecodeLearner) -> None:
    for _ in range(40):
        learner.observe(seconds=4.0, tokens=100, prefill_seconds=None)
    assert learner.tpot == pytest.approx(0.04, rel=0.03)


def test_follows_a_time_per_token_that_changes(learner: DecodeLearner) -> None:
    for seconds in [2.0] * 60 + [6.0] * 60:
        learner.observe(seconds, 100, None)
    assert learner.tpot == pytest.approx(0.06, rel=0.05)


def test_a_few_answers_overrule_the_prior(learner: DecodeLearner) -> None:
    for _ in range(4):
        learner.observe(4.0, 100, None)
    assert learner.tpot == pytest.approx((PRIOR + 4 * 0.04) / 5)


def test_one_wild_answer_moves_the_time_per_token_a_bounded_way_only(learner: DecodeLearner) -> None:
    for _ in range(40):
        learner.observe(2.0, 100, None)
    before = learner.tpot
    learner.observe(1e6, 10, None)
    assert learner.tpot <= before * (1 + SHARE * OUTLIER_FACTOR)


@pytest.mark.parametrize(("seconds", "tokens"), [(1.0, 0), (1.0, -1), (0.0, 100), (-2.0, 100)])
def test_answers_of_no_length_teach_nothing(learner: DecodeLearner, seconds: float, tokens: float) -> None:
    learner.observe(seconds, tokens, None)
    assert learner.tpot == PRIOR


@pytest.mark.parametrize("stall", [0.0, 0.5, 0.9])
def test_tells_what_prefills_cost_the_streams_beside_them(
    learner: DecodeLearner, costs: CostModel, stall: float
) -> None:
    observe_streams(learner, stall)
    assert costs.stall == pytest.approx(stall, abs=0.1)


def test_tells_nothing_of_stalls_where_the_prefill_beside_is_not_known(
    learner: DecodeLearner, costs: CostModel
) -> None:
    observe_streams(learner, 0.9, known=False)
    assert costs.stall == STALL
    assert learner.tpot > 0.03


def test_tells_nothing_of_stalls_before_there_is_a_mean_to_compare_with(
    learner: DecodeLearner, costs: CostModel
) -> None:
    for prefill in (0.0, 1.9, 0.0, 1.9, 0.0):
        learner.observe(2.0, 100, prefill)
    assert costs.stall == STALL


def test_a_stream_sees_no_more_prefill_than_it_lasted() -> None:
    plain, absurd = CostModel(), CostModel()
    for model, beside in ((plain, 2.0), (absurd, 1e9)):
        learner = DecodeLearner(PRIOR, model)
        for number in range(20):
            learner.observe(2.0 + number % 2, 100, beside if number % 2 else 0.0)
    assert 0.0 <= absurd.stall <= 1.0
    assert absurd.stall == pytest.approx(plain.stall, abs=0.2)
