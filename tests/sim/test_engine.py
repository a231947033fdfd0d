from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.model import Rate
from sim.capacity import PREFILL_OVERHEAD, Capacity
from sim.capacity import TOKENS_PER_BLOCK as BLOCK
from sim.engine import Engine, Event, Request, RequestTooLargeError
from sim.timing import DECODE_SLOWDOWN, ENGINES, KV_READ_TOKENS, MIXED_SLOWDOWN, PREFILL_SLOWDOWN, timing

RATE = Rate(prefill=1000.0, tpot=0.1)


def engine(kv_blocks: int = 1000, max_requests: int = 256, kind: str = "standard") -> Engine:
    size = Capacity(RATE, kv_blocks, max_requests, gpu_bytes=0, overhead=PREFILL_OVERHEAD)
    return Engine(size, timing(kind, seed=1, endpoint=0))


def request(request_id: int, prompt: int, output: int = 1, content: str = "") -> Request:
    """A request whose prompt and answer are those of every other with the same `content`."""
    blocks = [hash((content or request_id, n)) for n in range((prompt + output) // BLOCK)]
    return Request(request_id, prompt, output, blocks)


def first_tokens(events: list[Event]) -> dict[int, float]:
    return {event.id: event.at for event in events if not event.finished}


def ends(events: list[Event]) -> dict[int, float]:
    return {event.id: event.at for event in events if event.finished}


def test_the_first_token_comes_after_the_overhead_and_the_prompt_at_the_prefill_rate() -> None:
    e = engine()
    e.submit(request(1, prompt=500), now=10.0)
    assert e.next_event_at() == pytest.approx(10.0 + PREFILL_OVERHEAD + 0.5)
    assert e.advance(10.5) == []
    events = e.advance(11.0)
    assert [(event.id, event.finished) for event in events] == [(1, False), (1, True)]
    assert events[0].at == pytest.approx(10.508)
    assert e.next_event_at() == math.inf


@pytest.mark.parametrize("shared_blocks", [5, 10, 15])
def test_a_cached_prefix_shortens_the_first_token_in_proportion(shared_blocks: int) -> None:
    e = engine()
    e.submit(request(1, prompt=640, content="a"), now=0.0)
    e.advance(10.0)
    known = request(1, prompt=640, content="a").blocks[:shared_blocks]
    other = [*known, *request(2, prompt=640, content="b").blocks[shared_blocks:]]
    e.submit(Request(2, 640, 1, other), now=10.0)
    first = e.advance(20.0)[0]
    assert first.cached_tokens == shared_blocks * BLOCK
    assert first.at - 10.0 == pytest.approx(PREFILL_OVERHEAD + (640 - shared_blocks * BLOCK) / 1000)


def test_a_fully_cached_prompt_still_computes_its_last_block() -> None:
    e = engine()
    for number in (1, 2):
        e.submit(request(number, prompt=640, content="a"), now=number * 10.0)
        last = e.advance(number * 10.0 + 5)
    assert last[0].cached_tokens == 640 - BLOCK
    assert last[0].at == pytest.approx(20.0 + PREFILL_OVERHEAD + BLOCK / 1000)


def test_the_answer_is_cached_for_the_next_turn() -> None:
    e = engine()
    e.submit(request(1, prompt=320, output=320, content="a"), now=0.0)
    e.advance(100.0)
    e.submit(request(2, prompt=960, content="a"), now=100.0)
    assert e.advance(200.0)[0].cached_tokens == 640


def test_prompts_are_prefilled_in_order_of_arrival() -> None:
    e = engine()
    for number, prompt in enumerate((900, 100, 500)):
        e.submit(request(number, prompt), now=0.001 * number)
    got = first_tokens(e.advance(10.0))
    assert list(got) == [0, 1, 2]
    assert got[1] - got[0] == pytest.approx(PREFILL_OVERHEAD + 0.1)
    assert got[2] - got[1] == pytest.approx(PREFILL_OVERHEAD + 0.5)


def test_running_decodes_slow_a_prefill() -> None:
    e = engine()
    for number in range(10):
        e.submit(request(number, prompt=1, output=500), now=0.0)
    e.advance(1.0)
    e.submit(request(99, prompt=2000), now=1.0)
    first = first_tokens(e.advance(60.0))[99]
    assert first - 1.0 == pytest.approx(PREFILL_OVERHEAD + 2.0 * (1 + 10 * PREFILL_SLOWDOWN))


def test_an_answer_takes_its_tokens_times_the_rate_and_longer_in_company() -> None:
    alone, crowd = engine(), engine()
    alone.submit(request(0, prompt=100, output=101), now=0.0)
    events = alone.advance(100.0)
    assert ends(events)[0] - first_tokens(events)[0] == pytest.approx(100 * RATE.tpot)
    for number in range(8):
        crowd.submit(request(number, prompt=100, output=1001), now=0.0)
    events = crowd.advance(1000.0)
    slowest = RATE.tpot * (1 + 7 * DECODE_SLOWDOWN)
    last = ends(events)[7] - first_tokens(events)[7]
    assert 1000 * RATE.tpot < last <= 1000 * slowest + 1e-6
    assert last > 1000 * slowest * 0.99


def test_streams_are_slower_while_a_prefill_shares_their_iterations() -> None:
    e = engine()
    e.submit(request(1, prompt=100, output=1000), now=0.0)
    started = e.advance(1.0)[0].at
    e.submit(request(2, prompt=5000), now=1.0)
    before, during = e.progress(1, 1.0), e.progress(1, 5.0)
    assert before == 1 + int((1.0 - started) / RATE.tpot)
    expected = (1.0 - started) / RATE.tpot + 4.0 / (RATE.tpot * (1 + MIXED_SLOWDOWN))
    assert during == 1 + int(expected)


def test_progress_counts_every_token_once_and_never_the_last_before_the_end() -> None:
    e = engine()
    e.submit(request(1, prompt=92, output=11), now=0.0)
    seen = [e.progress(1, 0.001 * step) for step in range(1100)]
    assert seen[99] == 0
    assert seen[100] == 1
    assert seen[1099] == 10
    assert all(0 <= after - before <= 1 for before, after in pairwise(seen))
    assert ends(e.advance(1.2)) == {1: pytest.approx(1.1)}
    assert e.progress(1, 1.2) == 0


def test_the_least_recently_used_prefix_is_forgotten_at_capacity() -> None:
    e = engine(kv_blocks=30)
    for now, content in enumerate("abac"):
        e.submit(request(now, prompt=319, content=content), now=now * 10.0)
        e.advance(now * 10.0 + 9)
    e.submit(request(7, prompt=319, content="d"), now=50.0)
    e.advance(60.0)
    for number, (content, cached) in enumerate([("a", 288), ("b", 0)]):
        e.submit(request(10 + number, prompt=319, content=content), now=70.0 + 10 * number)
        assert e.advance(79.0 + 10 * number)[0].cached_tokens == cached


def test_a_request_waits_until_a_finished_one_releases_its_kv_blocks() -> None:
    e = engine(kv_blocks=20)
    e.submit(request(1, prompt=320, output=200), now=0.0)
    e.submit(request(2, prompt=320, output=100), now=0.0)
    e.submit(request(3, prompt=10, output=1), now=0.0)
    assert e.gauges(1.0).waiting == 2, "the small one waits its turn behind the one that does not fit"
    events = e.advance(100.0)
    assert first_tokens(events)[2] == pytest.approx(ends(events)[1] + PREFILL_OVERHEAD + 0.32)


@pytest.mark.parametrize("when", [0.1, 5.0])
def test_cancelling_a_running_request_lets_the_next_in(when: float) -> None:
    e = engine(kv_blocks=20)
    e.submit(request(1, prompt=320, output=200), now=0.0)
    e.submit(request(2, prompt=320, output=200), now=0.0)
    e.cancel(1, when)
    assert first_tokens(e.advance(100.0))[2] == pytest.approx(when + PREFILL_OVERHEAD + 0.32)
    assert e.gauges(100.0).blocks_used == 0


def test_a_batch_slot_must_be_free() -> None:
    e = engine(max_requests=1)
    e.submit(request(1, prompt=100, output=11), now=0.0)
    e.submit(request(2, prompt=100, output=11), now=0.0)
    events = e.advance(100.0)
    assert first_tokens(events)[2] == pytest.approx(ends(events)[1] + PREFILL_OVERHEAD + 0.1)


def test_a_cancelled_request_in_the_queue_never_runs() -> None:
    e = engine()
    for number in (1, 2, 3):
        e.submit(request(number, prompt=100), now=0.0)
    e.cancel(2, 0.01)
    e.cancel(77, 0.01)
    assert list(first_tokens(e.advance(10.0))) == [1, 3]
    assert e.gauges(10.0).finished == 2


def test_refuses_what_can_never_fit() -> None:
    e = engine(kv_blocks=10)
    e.submit(request(1, prompt=300, output=20), now=0.0)
    with pytest.raises(RequestTooLargeError, match=r"321 tokens .* 320"):
        e.submit(request(2, prompt=300, output=21), now=0.0)
    assert list(ends(e.advance(100.0))) == [1]


def test_gauges_tell_the_phases_apart() -> None:
    e = engine(kv_blocks=100)
    e.submit(request(1, prompt=100, output=500), now=0.0)
    e.submit(request(2, prompt=1000, output=10), now=0.0)
    e.submit(request(3, prompt=100), now=0.0)
    g = e.gauges(0.5)
    assert (g.active, g.scheduled, g.context, g.waiting) == (3, 2, 1, 1)
    assert g.blocks_used == 19 + 32
    assert g.context_tokens == 1000
    assert g.prefill_busy_seconds == pytest.approx(0.5)
    assert e.gauges(0.9).iterations > g.iterations
    e.advance(200.0)
    done = e.gauges(200.0)
    assert (done.active, done.blocks_used, done.finished) == (0, 0, 3)
    assert done.prefill_busy_seconds == pytest.approx(3 * PREFILL_OVERHEAD + 1.2, rel=PREFILL_SLOWDOWN)


arrivals = st.lists(
    st.tuples(
        st.floats(0, 0.5),  # seconds since the one before
        st.integers(1, 400),  # prompt tokens
        st.integers(1, 60),  # output tokens
        st.sampled_from("abc"),
        st.none() | st.floats(0, 3),  # cancelled so long after its arrival
    ),
    min_size=1,
    max_size=20,
)


Plan = list[tuple[float, int, int, str, float | None]]
kinds = st.sampled_from(sorted(ENGINES))


def play(plan: Plan, polls: int, kind: str) -> tuple[list[Event], Engine]:
    """Run a plan; `polls` further looks between two of its steps must change nothing."""
    e = engine(kv_blocks=20, max_requests=3, kind=kind)
    steps: list[tuple[float, int, Request | None]] = []
    at = 0.0
    for number, (gap, prompt, output, content, cancelled) in enumerate(plan):
        at += gap
        steps.append((at, number, request(number, prompt, output, content)))
        if cancelled is not None:
            steps.append((at + cancelled, number, None))
    events: list[Event] = []
    before = 0.0
    for now, number, arrival in sorted(steps, key=lambda step: (step[0], step[1], step[2] is None)):
        for poll in range(polls):
            look = before + (now - before) * poll / polls
            events += e.advance(look)
            e.gauges(look)
            e.progress(number, look)
        before = now
        if arrival is None:
            e.cancel(number, now)
        else:
            e.submit(arrival, now)
    return events + e.advance(1e6), e


@given(arrivals, kinds)
@settings(max_examples=150, deadline=None)
def test_everything_ends_once_and_gives_everything_back(plan: Plan, kind: str) -> None:
    events, e = play(plan, polls=0, kind=kind)
    finished = [event.id for event in events if event.finished]
    assert len(finished) == len(set(finished))
    started = first_tokens(events)
    assert set(finished) <= set(started)
    assert all(started[i] <= at for i, at in ends(events).items())
    assert [event.at for event in events] == sorted(event.at for event in events)
    uncancelled = {number for number, step in enumerate(plan) if step[4] is None}
    assert uncancelled <= set(finished)
    g = e.gauges(1e6)
    assert (g.active, g.blocks_used, g.context, g.finished) == (0, 0, 0, len(finished))
    assert e.next_event_at() == math.inf


@given(arrivals, kinds)
@settings(max_examples=80, deadline=None)
def test_event_times_do_not_depend_on_how_often_anyone_looks(plan: Plan, kind: str) -> None:
    assert play(plan, polls=7, kind=kind)[0] == play(plan, polls=0, kind=kind)[0]


@pytest.mark.parametrize("kind", ENGINES)
def test_every_output_token_is_given_one_at_a_time(kind: str) -> None:
    engines = engine(kind=kind), engine(kind=kind)
    for e in engines:
        e.submit(request(1, prompt=100, output=60), now=0.0)
        e.submit(request(2, prompt=3000), now=0.05)
    events = engines[0].advance(100.0)
    begun, took = first_tokens(events)[1], ends(events)[1] - first_tokens(events)[1]
    seen = [engines[1].progress(1, begun + took * step / 4000) for step in range(4000)]
    assert (seen[0], seen[-1]) == (1, 59)
    assert all(0 <= after - before <= 1 for before, after in pairwise(seen))


def test_streams_wait_for_chunks_of_a_prompt_where_they_share_a_budget() -> None:
    e = engine(kind="variant")
    e.submit(request(1, prompt=100, output=1000), now=0.0)
    e.advance(1.0)
    before, iterations = e.progress(1, 1.0), e.gauges(1.0).iterations
    e.submit(request(2, prompt=20_000), now=1.0)
    # A chunk of 2,047 tokens takes 2.05 s at the least, the stream's own part 0.1 s.
    assert 4 <= e.progress(1, 11.0) - before <= 5
    assert e.gauges(11.0).iterations - iterations <= 5


@pytest.mark.parametrize("kind", ENGINES)
def test_a_third_of_the_speed_takes_three_times_as_long(kind: str) -> None:
    took = []
    for factor in (1.0, 1 / 3):
        e = engine(kind=kind)
        e.set_speed(factor, 0.0)
        e.submit(request(1, prompt=900, output=50), now=0.0)
        events = e.advance(1000.0)
        first, last = first_tokens(events)[1], ends(events)[1]
        took.append((first - PREFILL_OVERHEAD, last - first))
    (prefill, decode), (slow_prefill, slow_decode) = took
    assert slow_prefill == pytest.approx(3 * prefill, rel=1e-2)  # the host's part of iterations stays
    assert slow_decode == pytest.approx(3 * decode)


@pytest.mark.parametrize("kind", ENGINES)
def test_what_was_done_before_a_slowdown_stays_done(kind: str) -> None:
    first = []
    for factor in (1.0, 0.5):
        e = engine(kind=kind)
        e.submit(request(1, prompt=1000, output=2), now=0.0)
        e.set_speed(factor, 0.508)
        first.append(first_tokens(e.advance(100.0))[1])
    assert first[1] - 0.508 == pytest.approx(2 * (first[0] - 0.508), rel=1e-3)


def test_a_stream_reads_its_own_context_and_none_of_those_that_left() -> None:
    took = []
    for prompt in (100, 30_000):
        e = engine(kind="variant")
        e.submit(request(1, prompt=1000, output=50), now=0.0)
        e.submit(request(2, prompt=1000, output=1000), now=0.0)
        e.cancel(2, 20.0)
        e.submit(request(3, prompt, output=11), now=50.0)
        events = e.advance(1000.0)
        took.append(ends(events)[3] - first_tokens(events)[3])
    expected = (1 + 30_000 / KV_READ_TOKENS) / (1 + 100 / KV_READ_TOKENS)
    assert took[1] / took[0] == pytest.approx(expected, rel=1e-6)


def test_an_engine_with_larger_blocks_matches_and_counts_in_them() -> None:
    size = Capacity(RATE, 10, 256, gpu_bytes=0, overhead=PREFILL_OVERHEAD, tokens_per_block=512)
    e = Engine(size)
    e.submit(Request(1, 1100, 1, (1, 2)), now=0.0)
    e.submit(Request(2, 1100, 100, (1, 3)), now=5.0)
    gauges = e.gauges(6.0)
    assert (gauges.tokens_per_block, gauges.blocks_used) == (512, 3)
    assert [event.cached_tokens for event in e.advance(20.0)] == [0, 0, 512, 512]
    with pytest.raises(RequestTooLargeError, match="5120"):
        e.submit(Request(3, 5120, 1), now=20.0)
