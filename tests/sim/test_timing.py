from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import ConfigError
from fleet.model import Rate
from sim.timing import (
    ATTENTION_TOKENS,
    DECODE_SLOWDOWN,
    ITERATION_OVERHEAD,
    KV_READ_TOKENS,
    MIXED_SLOWDOWN,
    NOISE,
    PREFILL_SLOWDOWN,
    TOKEN_BUDGET,
    Batch,
    Pace,
    Prompt,
    SharedBudgetTiming,
    StandardTiming,
    timing,
)

RATE = Rate(prefill=20_000.0, tpot=0.01)


class Noiseless(random.Random):
    def lognormvariate(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        del mu, sigma
        return 1.0


def prompt(tokens: float, position: float = 0.0, overhead: float = 0.0, cost: float = 1.0) -> Prompt:
    return Prompt(position, tokens, overhead, cost)


def variant(streams: int, context: float = 0.0, computing: Prompt | None = None) -> Pace:
    return SharedBudgetTiming(Noiseless()).pace(RATE, Batch(streams, context, computing))


def played(streams: int, context: float, tokens: int, position: int) -> tuple[float, int]:
    """Seconds and iterations of a prompt, played iteration by iteration and token by token."""
    alone = RATE.tpot * (1 + DECODE_SLOWDOWN * (streams - 1) + context / KV_READ_TOKENS)
    seconds, iterations, end = 0.0, 0, position + tokens
    while position < end:
        chunk = range(position, min(end, position + TOKEN_BUDGET - streams))
        seconds += alone if streams else ITERATION_OVERHEAD
        seconds += sum(1 + at / ATTENTION_TOKENS for at in chunk) / RATE.prefill
        position, iterations = chunk.stop, iterations + 1
    return seconds, iterations


def test_attention_doubles_a_tokens_cost_at_thirty_thousand_tokens() -> None:
    assert pytest.approx(30_518, abs=1) == ATTENTION_TOKENS
    assert pytest.approx(273_000, rel=0.01) == KV_READ_TOKENS


@pytest.mark.parametrize("streams", [0, 1, 48])
@pytest.mark.parametrize("position", [0, 24_000])
def test_whole_chunks_take_what_their_iterations_add_up_to(streams: int, position: int) -> None:
    tokens = 5 * (TOKEN_BUDGET - streams)
    pace = variant(streams, 9000.0 * streams, prompt(tokens, position))
    seconds, iterations = played(streams, 9000.0 * streams, tokens, position)
    assert pace.prefill_seconds() == pytest.approx(seconds, rel=1e-4)
    assert pace.iterations(pace.prefill_seconds()) == pytest.approx(iterations)


def test_a_prompt_that_ends_in_part_of_a_chunk_is_off_by_less_than_an_iterations_decode_part() -> None:
    seconds, _ = played(40, 0.0, 5000, 0)
    fluid = variant(40, 0.0, prompt(5000)).prefill_seconds()
    assert 0 < seconds - fluid < RATE.tpot * (1 + 39 * DECODE_SLOWDOWN)


def test_a_lone_prompt_takes_the_integral_of_its_tokens_costs() -> None:
    n = 60_000
    integral = (n + n**2 / 2 / ATTENTION_TOKENS) / RATE.prefill + n / TOKEN_BUDGET * ITERATION_OVERHEAD
    assert variant(0, 0.0, prompt(n, overhead=0.008)).prefill_seconds() == pytest.approx(0.008 + integral)


def test_a_long_context_costs_more_a_token_and_a_cached_prefix_does_not_make_it_short() -> None:
    short = variant(0, 0.0, prompt(1000)).prefill_seconds()
    long = variant(0, 0.0, prompt(100_000)).prefill_seconds() / 100
    late = variant(0, 0.0, prompt(1000, position=99_000)).prefill_seconds()
    assert short * 2.5 < long < late < short * 4.5


def test_the_prompts_own_factor_scales_its_work_alone() -> None:
    plain, dear = (variant(10, 0.0, prompt(10_000, cost=cost)).prefill_seconds() for cost in (1.0, 1.5))
    work = (10_000 + 10_000**2 / 2 / ATTENTION_TOKENS) / RATE.prefill
    assert dear - plain == pytest.approx(0.5 * work)


def test_streams_get_one_token_for_each_long_iteration_beside_a_prompt() -> None:
    beside, alone = variant(8, 0.0, prompt(100_000)), variant(8)
    iteration = RATE.tpot * (1 + 7 * DECODE_SLOWDOWN) + (TOKEN_BUDGET - 8) / RATE.prefill
    assert beside.seconds(1.0) == pytest.approx(iteration, rel=0.04)  # its attention
    assert alone.seconds(1.0) == pytest.approx(RATE.tpot * (1 + 7 * DECODE_SLOWDOWN))
    assert beside.seconds(1.0) / alone.seconds(1.0) > 9


def test_streams_go_on_alone_while_the_host_prepares_the_prompt() -> None:
    pace = variant(1, 0.0, prompt(100_000, overhead=0.05))
    assert pace.iterations(0.05) == pytest.approx(5.0)
    assert pace.tokens(0.05) == 0
    assert pace.seconds(4.5) == pytest.approx(0.045)
    assert 0.15 < pace.seconds(6.0) < 0.17


def test_long_contexts_slow_their_streams() -> None:
    assert variant(1, KV_READ_TOKENS).seconds(100) == pytest.approx(2 * 100 * RATE.tpot)


@given(
    st.integers(0, 256),
    st.floats(0, 1e6),
    st.floats(0, 1e5),
    st.floats(1, 1e5),
    st.floats(0, 0.1),
    st.floats(0, 1),
)
@settings(max_examples=200)
def test_a_paces_figures_fit_each_other(
    streams: int, context: float, position: float, tokens: float, overhead: float, share: float
) -> None:
    pace = variant(streams, context, prompt(tokens, position, overhead))
    whole = pace.prefill_seconds()
    assert pace.tokens(whole) == pytest.approx(tokens, rel=1e-6)
    assert pace.tokens(share * whole) <= tokens * (1 + 1e-9)
    if streams:
        assert pace.seconds(pace.iterations(share * whole)) == pytest.approx(share * whole, rel=1e-6)
    assert pace.iterations(0.0) == pace.tokens(0.0) == 0.0


def test_noise_has_its_spread_around_one() -> None:
    drawn = SharedBudgetTiming(random.Random(1))
    costs = [drawn.prompt_cost() for _ in range(20_000)]
    paces = [drawn.pace(RATE, Batch(1 + n % 2, 0.0, None)).seconds(1) / RATE.tpot for n in range(20_000)]
    for factors in (costs, paces[::2]):
        assert fmean(factors) == pytest.approx(1.0, abs=0.005)
        assert stdev(factors) == pytest.approx(NOISE, rel=0.03)


def test_an_iterations_factor_stays_until_the_number_of_streams_changes() -> None:
    drawn = SharedBudgetTiming(random.Random(1))
    before = drawn.pace(RATE, Batch(3, 0.0, None))
    assert drawn.pace(RATE, Batch(3, 0.0, prompt(100, overhead=1.0))).seconds(1) == before.seconds(1)
    alone = 1 + 3 * DECODE_SLOWDOWN
    assert drawn.pace(RATE, Batch(4, 0.0, None)).seconds(1) / alone != pytest.approx(
        before.seconds(1) / (1 + 2 * DECODE_SLOWDOWN)
    )


def test_noise_is_the_same_for_a_seed_and_differs_between_endpoints() -> None:
    one, again, other = (timing("variant", 7, endpoint) for endpoint in (3, 3, 4))
    drawn = [[each.prompt_cost() for _ in range(5)] for each in (one, again, other)]
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_the_standard_timing_is_linear_in_its_streams() -> None:
    standard = timing("standard", 0, 0)
    assert isinstance(standard, StandardTiming)
    beside = standard.pace(RATE, Batch(11, 1e6, prompt(20_000, 50_000, overhead=0.008)))
    assert beside.prefill_seconds() == pytest.approx(0.008 + 1 + 11 * PREFILL_SLOWDOWN)
    assert beside.seconds(100) == pytest.approx((1 + 10 * DECODE_SLOWDOWN) * (1 + MIXED_SLOWDOWN))
    assert standard.pace(RATE, Batch(1, 1e6, None)).iterations(1.0) == pytest.approx(100)
    assert standard.prompt_cost() == 1.0


def test_an_engine_without_streams_or_prompt_does_nothing() -> None:
    assert variant(0).iterations(math.pi) == 0.0


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'quantum'.*standard, variant"):
        timing("quantum", 0, 0)
