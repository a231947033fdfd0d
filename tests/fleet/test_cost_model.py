from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cost_model import (
    LARGEST_SHARE,
    MEANS_MIN,
    POSITION_UNIT,
    SLOWDOWN_PER_DECODE,
    STALL,
    STREAMS_UNIT,
    CostModel,
    Means,
)

RATES = (400.0, 1500.0, 6000.0)  # tokens a second; nobody tells the model
Draw = Callable[[random.Random], float]


def feed(
    model: CostModel,
    rates: tuple[float, ...] = RATES,
    *,
    context: float,
    decode: float,
    noise: float = 0.1,
    rounds: int = 250,
    later: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> None:
    """Prefills at endpoints of `rates`, each of which is so many times as fast in the second half."""
    draw = random.Random(5)
    means = [Means() for _ in rates]
    for number in range(rounds):
        for rate, factor, mean in zip(rates, later, means, strict=True):
            position, streams = draw.uniform(0, 40_000), draw.randint(0, 40)
            now = rate * (factor if number > rounds // 2 else 1.0)
            seconds = (1 + context * position + decode * streams) / now * draw.lognormvariate(0, noise)
            model.observe_prefill(mean, seconds, position, streams, 1.0)


def share_of_mean_prefill(model: CostModel) -> float:
    """Of the mean prefill over all endpoints, the part that is context and streams."""
    extra = model.context * POSITION_UNIT * model._position + model.decode * STREAMS_UNIT * model._streams
    return extra / (1 + extra)


def test_assumes_a_slowdown_by_decodes_and_none_by_context_until_it_knows_better() -> None:
    model = CostModel()
    assert (model.context, model.decode, model.stall) == (0.0, SLOWDOWN_PER_DECODE, STALL)
    model.observe_prefill(Means(), 0.001, 20_000, 10, 1.0)  # one prefill has nothing to be compared with
    assert (model.context, model.decode, model.stall) == (0.0, SLOWDOWN_PER_DECODE, STALL)


def test_weighs_tokens_by_their_mean_position() -> None:
    model = CostModel()
    assert model.work(matched=5000, uncached=1000) == 1000
    model.context = 1e-4
    assert model.work(matched=5000, uncached=1000) == pytest.approx(1000 * 1.55)
    whole = model.work(0, 6000)
    assert whole == pytest.approx(model.work(0, 5000) + model.work(5000, 1000))


def test_slows_a_prefill_by_a_share_per_stream() -> None:
    model = CostModel()
    model.decode = 0.02
    assert [model.slowdown(streams) for streams in (0, 10, 50)] == pytest.approx([1.0, 1.2, 2.0])


@pytest.mark.parametrize(("context", "decode"), [(2e-5, 0.03), (5e-5, 0.012), (1e-5, 0.06)])
def test_learns_what_context_and_decodes_cost_at_endpoints_of_unknown_rates(
    context: float, decode: float
) -> None:
    model = CostModel()
    feed(model, context=context, decode=decode)
    assert model.context == pytest.approx(context, rel=0.15)
    assert model.decode == pytest.approx(decode, rel=0.15)


@pytest.mark.parametrize("later", [(1 / 3, 1.0, 1.0), (1.6, 0.8, 1.6)])
def test_learns_the_same_from_endpoints_whose_rates_change_meanwhile(later: tuple[float, ...]) -> None:
    model = CostModel()
    feed(model, context=3e-5, decode=0.03, later=later)
    assert model.context == pytest.approx(3e-5, rel=0.15)
    assert model.decode == pytest.approx(0.03, rel=0.15)


def test_learns_that_there_is_no_cost_where_there_is_none() -> None:
    model = CostModel()
    feed(model, context=0.0, decode=0.0)
    assert model.context * POSITION_UNIT < 0.03
    assert model.decode < SLOWDOWN_PER_DECODE / 5


def test_is_not_fooled_by_long_prompts_and_many_streams_at_a_slow_endpoint() -> None:
    model = CostModel()
    draw = random.Random(3)
    slow, fast = Means(), Means()
    for _ in range(300):
        model.observe_prefill(slow, 1 / draw.gauss(500, 40), draw.gauss(30_000, 3000), draw.gauss(30, 3), 1.0)
        model.observe_prefill(fast, 1 / draw.gauss(5000, 400), draw.gauss(2000, 600), draw.gauss(4, 1), 1.0)
    # Compared across endpoints these would be 9 times dearer: 3e-4 a token, 0.3 a stream.
    assert model.context < 1e-5
    assert model.decode < 2 * SLOWDOWN_PER_DECODE


def test_tells_context_and_streams_apart_where_they_come_together() -> None:
    model, means, draw = CostModel(), Means(), random.Random(4)
    for _ in range(600):
        position = draw.uniform(0, 40_000)
        streams = position / 1000 + draw.uniform(-10, 10)
        seconds = (1 + 5e-5 * position) / 1000 * draw.lognormvariate(0, 0.05)
        model.observe_prefill(means, seconds, position, streams, 1.0)
    assert model.context == pytest.approx(5e-5, rel=0.25)
    assert model.decode < SLOWDOWN_PER_DECODE


def test_one_prefill_after_a_few_alike_hardly_changes_what_is_assumed() -> None:
    model, means = CostModel(), Means()
    for _ in range(6):
        model.observe_prefill(means, 0.001, 1000, 5, 1.0)
    model.observe_prefill(means, 0.002, 2000, 6, 1.0)  # alone, it would say: twice as dear for 1000 tokens
    assert model.context < 1e-4
    assert model.decode < 2 * SLOWDOWN_PER_DECODE


def test_never_makes_a_prefill_cheaper_for_its_context_or_its_company() -> None:
    model, means, draw = CostModel(), Means(), random.Random(6)
    for _ in range(200):
        position, streams = draw.uniform(0, 40_000), draw.uniform(0, 40)
        model.observe_prefill(means, 1 / (500 + position / 40 + 20 * streams), position, streams, 1.0)
    assert (model.context, model.decode) == (0.0, 0.0)


def test_takes_most_of_a_prefill_for_context_and_streams_at_most_up_to_a_bound() -> None:
    model, means, draw = CostModel(), Means(), random.Random(1)
    for _ in range(300):
        position = draw.uniform(0, 40_000)
        model.observe_prefill(means, 1e-12 * position**2 + 1e-9, position, 5.0, 1.0)
    assert share_of_mean_prefill(model) == pytest.approx(LARGEST_SHARE, rel=0.01)


def test_forgets_what_a_release_before_cost() -> None:
    model = CostModel()
    feed(model, context=5e-5, decode=0.05)
    feed(model, context=0.0, decode=0.01, rounds=400)
    assert model.context * POSITION_UNIT < 0.05
    assert model.decode == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("stall", [0.0, 0.2, 0.9])
def test_learns_what_a_prefill_costs_the_streams_beside_it(stall: float) -> None:
    model = CostModel()
    draw = random.Random(7)
    for _ in range(200):
        share = draw.gauss(0, 0.4)
        model.observe_stream(share, stall * share + draw.gauss(0, 0.1))
    assert model.stall == pytest.approx(stall, rel=0.15, abs=0.05)


def test_streams_that_saw_nothing_unusual_leave_the_assumption() -> None:
    model = CostModel()
    for _ in range(500):
        model.observe_stream(0.0, 0.3)
    assert model.stall == pytest.approx(STALL)


Seen = tuple[int, float, float, float, float]
POSITIVE = st.floats(1e-9, 1e9)
PREFILLS = st.tuples(st.integers(0, 2), POSITIVE, POSITIVE, POSITIVE, st.floats(0.05, 1.0))
ANY = st.floats(-1e9, 1e9)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), POSITIVE, POSITIVE, POSITIVE, st.floats(0.05, 1.0)), max_size=60)
)
def test_stays_within_bounds_whatever_it_sees(seen: list[Seen]) -> None:
    model = CostModel()
    means = [Means() for _ in range(3)]
    for endpoint, *observation in seen:
        model.observe_prefill(means[endpoint], *observation)
        assert 0.0 <= model.context < math.inf
        assert 0.0 <= model.decode < math.inf
        assert 0.0 <= model.work(5000, 1000) < math.inf
        assert model.slowdown(10) >= 1.0
        if any(mean.weight > MEANS_MIN for mean in means):
            assert share_of_mean_prefill(model) <= LARGEST_SHARE + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANY, ANY), max_size=60))
def test_a_stall_is_a_share_whatever_it_sees(seen: list[tuple[float, float]]) -> None:
    model = CostModel()
    for share, slowdown in seen:
        model.observe_stream(share, slowdown)
        assert 0.0 <= model.stall <= 1.0
