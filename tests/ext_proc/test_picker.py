from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.model import Endpoint, Hardware, Load, Rate
from fleet.settings import PickerSettings

FAST, SLOW, THIRD = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
SETTINGS = PickerSettings()
TOKENS = SETTINGS.tokens_per_block


def endpoint(address: str, rate: float) -> Endpoint:
    return Endpoint(address, "m", "v", "p", Hardware("H100-80GB"), prior=Rate(rate, 0.01))


ENDPOINTS = [endpoint(FAST, 20_000), endpoint(SLOW, 5_000), endpoint(THIRD, 5_000)]


def make_picker(seed: int = 0) -> Picker:
    return Picker(SETTINGS, ENDPOINTS, seed=seed)


def request(
    blocks: range = range(100),
    candidates: tuple[str, ...] = (FAST, SLOW, THIRD),
    session: str = "",
    streamed: bool = True,
) -> RoutingRequest:
    return RoutingRequest(
        candidates=candidates,
        prompt_tokens=len(blocks) * TOKENS + 1,
        blocks=blocks,
        tokens_per_block=TOKENS,
        session=session,
        streamed=streamed,
    )


def fresh(n: int) -> range:
    """The blocks of a prompt that no other begins like."""
    return range(n * 1000, n * 1000 + 100)


def test_picks_the_fastest_when_all_are_idle_and_cold() -> None:
    decision = make_picker().pick(request(), 0.0)
    assert decision is not None
    assert decision.endpoints[0] == FAST
    assert decision.predicted_ttft == pytest.approx(0.008 + 6401 / 20_000)
    assert sorted(decision.endpoints) == sorted((FAST, SLOW, THIRD))


def test_goes_where_the_prefix_is_even_if_that_endpoint_is_slower() -> None:
    picker = make_picker()
    first = picker.pick(request(candidates=(SLOW,)), 0.0)
    assert first is not None
    picker.finish(first.id, 5.0, endpoint=SLOW)
    second = picker.pick(request(range(110)), 5.0)
    assert second is not None
    assert second.endpoints[0] == SLOW
    assert second.matched_tokens == 100 * TOKENS


def test_leaves_the_prefix_when_the_queue_there_costs_more_than_it_saves() -> None:
    picker = make_picker()
    warm = picker.pick(request(range(10), candidates=(SLOW,)), 0.0)
    assert warm is not None
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    picker.pick(request(range(1000, 2000), candidates=(SLOW,)), 1.0)  # 12.8 s of work
    decision = picker.pick(request(range(10)), 1.0)
    assert decision is not None
    assert decision.endpoints[0] == FAST


def test_spreads_a_burst_by_rate_because_its_own_placements_count_at_once() -> None:
    picker = make_picker()
    picks = [picker.pick(request(fresh(n)), 0.0) for n in range(60)]
    counts = {a: sum(d is not None and d.endpoints[0] == a for d in picks) for a in (FAST, SLOW, THIRD)}
    assert counts[FAST] == pytest.approx(40, abs=3)
    assert counts[SLOW] == pytest.approx(10, abs=3)


def test_keeps_the_session_at_home_among_equals_and_otherwise_draws() -> None:
    chosen = set()
    for seed in range(20):
        picker = make_picker(seed)
        equals = (SLOW, THIRD)
        first = picker.pick(request(range(0), candidates=equals, session="s"), 0.0)
        assert first is not None
        picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
        second = picker.pick(request(range(0), candidates=equals, session="s"), 2.0)
        assert second is not None
        assert second.endpoints[0] == first.endpoints[0]
        chosen.add(first.endpoints[0])
    assert chosen == {SLOW, THIRD}


def test_is_deterministic_for_a_seed_and_its_ids_are_not_guessable_from_another() -> None:
    def ids(seed: int) -> list[tuple[str, str]]:
        picker = make_picker(seed)
        picks = [picker.pick(request(range(n, n + 5)), float(n)) for n in range(30)]
        return [(d.id, d.endpoints[0]) for d in picks if d is not None]

    assert ids(7) == ids(7)
    assert not {i for i, _ in ids(7)} & {i for i, _ in ids(8)}
    assert len({i for i, _ in ids(7)}) == 30


def test_learns_that_an_endpoint_is_slower_than_its_hardware_says() -> None:
    picker = make_picker()
    now = 0.0
    for n in range(40):
        decision = picker.pick(request(fresh(n), candidates=(FAST,)), now)
        assert decision is not None
        now += 0.008 + 6401 / 4_000  # a fifth of the prior
        picker.first_token(decision.id, now)
        picker.finish(decision.id, now + 0.1, endpoint=FAST)
        now += 1.0
    assert picker.rates(at=now)[FAST].prefill == pytest.approx(4_000, rel=0.05)
    decision = picker.pick(request(range(90_000, 90_100)), now)
    assert decision is not None
    assert decision.endpoints[0] != FAST


def test_cached_tokens_correct_the_work_that_a_first_token_stood_for() -> None:
    picker = make_picker()
    decision = picker.pick(request(candidates=(FAST,)), 0.0)
    assert decision is not None
    picker.first_token(decision.id, 0.008 + 0.032)  # a tenth was computed: the engine knew the rest
    picker.finish(decision.id, 0.1, endpoint=FAST, prompt_tokens=1000, cached_tokens=900, output_tokens=5)
    picker.expire(10.0)
    assert picker.rates(at=1.0)[FAST].prefill == pytest.approx(20_000, rel=0.02)
    assert picker.traffic(at=1.0)[FAST].match_ratio == pytest.approx(0.9)


def test_a_correction_that_comes_long_after_the_first_token_still_counts() -> None:
    picker = make_picker()
    for n in range(20):
        now = n * 100.0
        warm = picker.pick(request(candidates=(FAST,)), now)
        assert warm is not None
        at = now + 0.008 + 6400 / 20_000  # computed in full: this engine keeps no cache
        picker.first_token(warm.id, at)
        for later in range(1, 9):
            picker.running(warm.id, at + later)
            picker.expire(at + later)
        picker.finish(warm.id, at + 9, endpoint=FAST, prompt_tokens=6401, cached_tokens=0)
    assert picker.rates(at=1.0)[FAST].prefill == pytest.approx(20_000, rel=0.05)
    again = picker.pick(request(candidates=(FAST,)), 5000.0)
    assert again is not None
    assert again.matched_tokens < 0.2 * 6400  # and its matches are hardly believed any more


def test_learns_the_time_per_token_from_the_time_the_answer_took_on_the_wire() -> None:
    picker = make_picker()
    for n in range(100):
        decision = picker.pick(request(fresh(n), candidates=(FAST,)), n * 10.0)
        assert decision is not None
        picker.first_token(decision.id, n * 10.0 + 0.4)
        picker.finish(decision.id, n * 10.0 + 9.0, endpoint=FAST, decode_seconds=2.0, output_tokens=101)
        picker.expire(n * 10.0 + 9.5)
    assert picker.rates(at=1.0)[FAST].tpot == pytest.approx(0.02, rel=0.02)


def test_a_prefill_that_was_given_up_teaches_nothing_of_those_behind_it() -> None:
    picker = make_picker()
    for n in range(10):
        now = n * 100.0
        long = picker.pick(request(range(n * 10_000, n * 10_000 + 1500), candidates=(FAST,)), now)
        short = picker.pick(request(fresh(500 + n), candidates=(FAST,)), now)
        assert long is not None
        assert short is not None
        picker.finish(long.id, now + 4.0, endpoint=FAST, answered=False)  # its client left
        picker.first_token(short.id, now + 5.0)
        picker.finish(short.id, now + 6.0, endpoint=FAST)
        picker.expire(now + 10.0)
    assert picker.rates(at=1.0) == {}


def test_a_refused_request_says_nothing_of_speed_health_or_cache() -> None:
    picker = make_picker()
    for n in range(50):
        decision = picker.pick(request(fresh(n), candidates=(SLOW,)), float(n))
        assert decision is not None
        picker.finish(decision.id, n + 0.001, endpoint=SLOW, answered=False)
        picker.expire(n + 0.9)
    assert picker.rates(at=1.0) == {}
    again = picker.pick(request(fresh(7), candidates=(SLOW,)), 99.0)
    assert again is not None
    assert again.matched_tokens == 0
    assert picker.traffic(at=1.0)[SLOW].match_ratio is None


def test_an_ejected_endpoint_is_back_with_the_first_token_of_its_probe_and_not_by_an_abandoned_one() -> None:
    picker = make_picker()
    for n in range(2):
        failing = picker.pick(request(fresh(n), candidates=(FAST,)), 0.0)
        assert failing is not None
        picker.finish(failing.id, 0.1, endpoint=FAST, failed=True)
    abandoned = picker.pick(request(fresh(5)), 2.0)
    assert abandoned is not None
    assert abandoned.endpoints[0] == FAST
    picker.finish(abandoned.id, 3.0, endpoint=FAST, answered=False)
    still_out = picker.pick(request(fresh(6)), 3.1)
    assert still_out is not None
    assert FAST not in still_out.endpoints
    probe = picker.pick(request(fresh(7)), 8.0)
    assert probe is not None
    assert probe.endpoints[0] == FAST
    picker.first_token(probe.id, 8.4)
    back = picker.pick(request(fresh(8)), 8.5)
    assert back is not None
    assert back.endpoints[0] == FAST


def test_a_prompt_that_was_never_computed_is_not_believed_to_be_cached() -> None:
    for end in ("failed", "cancelled", "moved"):
        picker = make_picker()
        decision = picker.pick(request(candidates=(FAST, SLOW)), 0.0)
        assert decision is not None
        if end == "failed":
            picker.finish(decision.id, 0.1, endpoint=FAST, failed=True)
        elif end == "cancelled":
            picker.cancel(decision.id, 0.1)
        else:
            picker.running(decision.id, 0.1, endpoint=SLOW, attempts=2)
        again = picker.pick(request(candidates=(FAST,)), 5.0)
        assert again is not None
        assert again.matched_tokens == 0, end


def test_blames_all_that_envoy_stepped_over_on_its_way_out_of_the_list() -> None:
    picker = Picker(PickerSettings(endpoints_per_pick=1), ENDPOINTS)
    for n in range(2):
        decision = picker.pick(request(fresh(n)), 0.0)
        assert decision is not None
        assert decision.endpoints == (FAST,)
        picker.running(decision.id, 0.1, endpoint=SLOW, attempts=2)
        picker.finish(decision.id, 1.0, endpoint=SLOW)
    after = picker.pick(request(fresh(9)), 1.0)
    assert after is not None
    assert after.endpoints[0] != FAST


def test_blames_nobody_where_envoy_did_not_take_the_list_at_all() -> None:
    picker = Picker(PickerSettings(endpoints_per_pick=1), ENDPOINTS)
    for n in range(5):
        decision = picker.pick(request(fresh(n)), 0.0)
        assert decision is not None
        picker.running(decision.id, 0.1, endpoint=SLOW)
        picker.finish(decision.id, 1.0, endpoint=SLOW)
    after = picker.pick(request(fresh(9)), 1.0)
    assert after is not None
    assert after.endpoints[0] == FAST


def test_old_news_of_a_full_cache_keeps_nobody_away() -> None:
    picker = make_picker()
    full = Load(at=0.0, kv_blocks_max=1000, kv_blocks_used=1000, tokens_per_block=10)
    picker.observe(FAST, full, now=0.0)
    decision = picker.pick(request(candidates=(FAST,)), 11.0)
    assert decision is not None
    assert decision.reasons[0].room_wait == 0


def test_an_answer_that_is_not_streamed_never_trains_the_rate() -> None:
    picker = make_picker()
    decision = picker.pick(request(candidates=(FAST,), streamed=False), 0.0)
    assert decision is not None
    assert picker.first_token(decision.id, 30.0)
    picker.finish(decision.id, 30.0, endpoint=FAST)
    picker.expire(60.0)
    assert picker.rates(at=1.0) == {}


def test_leaves_out_an_endpoint_after_two_failures_and_probes_it_later() -> None:
    picker = make_picker()
    for n in range(2):
        decision = picker.pick(request(fresh(10 + n)), 0.0)
        assert decision is not None
        assert decision.endpoints[0] == FAST
        picker.finish(decision.id, 0.1, endpoint=decision.endpoints[1])  # Envoy had to step over it
    later = picker.pick(request(fresh(2)), 0.2)
    assert later is not None
    assert FAST not in later.endpoints
    probe = picker.pick(request(fresh(3)), 2.0)
    assert probe is not None
    assert probe.endpoints[0] == FAST
    during = picker.pick(request(fresh(4)), 2.1)
    assert during is not None
    assert FAST not in during.endpoints
    picker.finish(probe.id, 2.2, endpoint=FAST)
    after = picker.pick(request(fresh(5)), 2.3)
    assert after is not None
    assert after.endpoints[0] == FAST


def test_forgets_the_blocks_of_an_endpoint_it_ejects() -> None:
    picker = make_picker()
    warm = picker.pick(request(candidates=(SLOW,)), 0.0)
    assert warm is not None
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    for _ in range(2):
        failing = picker.pick(request(range(0), candidates=(SLOW,)), 1.0)
        assert failing is not None
        picker.finish(failing.id, 1.1, endpoint=SLOW, failed=True)
    back = picker.pick(request(candidates=(SLOW,)), 9.0)
    assert back is not None
    assert back.matched_tokens == 0


def test_uses_what_there_is_when_every_endpoint_is_ejected() -> None:
    picker = make_picker()
    for address in (FAST, SLOW, THIRD):
        picker.observe(address, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    assert picker.pick(request(), 0.0) is not None


def test_avoids_an_endpoint_that_the_collector_found_down() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    assert FAST not in decision.endpoints


def test_no_longer_believes_that_an_endpoint_is_down_once_the_collector_is_silent() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    decision = picker.pick(request(), 11.0)
    assert decision is not None
    assert decision.endpoints[0] == FAST


def test_believes_in_no_more_blocks_than_the_engine_has_room_for() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, kv_blocks_max=100, tokens_per_block=32), now=0.0)  # 50 of our blocks
    decision = picker.pick(request(candidates=(FAST,)), 0.0)
    assert decision is not None
    again = picker.pick(request(candidates=(FAST,)), 1.0)
    assert again is not None
    assert again.matched_tokens == 50 * TOKENS


def test_waits_for_a_batch_slot_where_all_are_taken() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, max_requests=2), now=0.0)
    for n in range(2):
        decision = picker.pick(request(range(n * 10, n * 10 + 1), candidates=(FAST,)), 0.0)
        assert decision is not None
        picker.first_token(decision.id, 0.5)
    full = picker.pick(request(range(500, 501), candidates=(FAST,)), 1.0)
    assert full is not None
    assert full.reasons[0].room_wait == pytest.approx(256 * 0.01 / 2)


def test_waits_for_kv_space_where_the_prompt_does_not_fit_beside_the_running_answers() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, kv_blocks_max=1000, kv_blocks_used=900, tokens_per_block=10), now=0.0)
    decision = picker.pick(request(range(100), candidates=(FAST,)), 0.0)
    assert decision is not None
    missing = (6401 + 256 - 1000) / 9000  # of the space that running answers hold
    assert decision.reasons[0].room_wait == pytest.approx(missing * 256 * 0.01)


def test_follows_a_request_that_envoy_retried_to_the_endpoint_that_serves_it() -> None:
    picker = make_picker()
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    first, second, _ = decision.endpoints
    assert picker.running(decision.id, 0.5, endpoint=second, attempts=2)
    in_flight = {a: t.in_flight for a, t in picker.traffic(at=0.0).items()}
    assert (in_flight[first], in_flight[second]) == (0, 1)
    picker.first_token(decision.id, 1.0)
    picker.finish(decision.id, 2.0, endpoint=second)
    picker.expire(10.0)
    assert picker.rates(at=1.0) == {}  # the time since placing was not this endpoint's alone
    again = picker.pick(request(range(110), candidates=(second,)), 10.0)
    assert again is not None
    assert again.matched_tokens == 100 * TOKENS


def test_blames_a_failed_endpoint_once_per_request_however_often_the_log_speaks_of_it() -> None:
    picker = make_picker()
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    for now in (0.5, 1.0, 1.5):
        picker.running(decision.id, now, endpoint=decision.endpoints[1], attempts=2)
    picker.finish(decision.id, 2.0, endpoint=decision.endpoints[1])
    later = picker.pick(request(fresh(7)), 2.0)
    assert later is not None
    assert later.endpoints[0] == FAST  # one failure ejects nobody


def test_takes_a_decision_back_that_nobody_heard_of() -> None:
    picker = make_picker()
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    picker.cancel(decision.id, 0.1)
    picker.cancel(decision.id, 0.1)
    assert picker.in_flight == 0
    assert not picker.finish(decision.id, 1.0, endpoint=FAST)


def test_a_long_answer_stays_as_long_as_the_log_speaks_of_it() -> None:
    picker = make_picker()
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    now = 0.0
    while now < 4 * SETTINGS.silence_seconds:
        now += SETTINGS.silence_seconds / 2
        assert picker.running(decision.id, now)
        assert picker.expire(now) == 0
    assert picker.expire(now + SETTINGS.silence_seconds) == 1


def test_an_endpoint_found_down_comes_back_with_an_empty_cache() -> None:
    picker = make_picker()
    warm = picker.pick(request(candidates=(SLOW,)), 0.0)
    assert warm is not None
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    picker.observe(SLOW, Load(at=0.0, ready=False, reason="connection refused"), now=2.0)
    picker.observe(SLOW, Load(at=0.0), now=5.0)
    back = picker.pick(request(candidates=(SLOW,)), 5.0)
    assert back is not None
    assert back.matched_tokens == 0


def test_ignores_news_of_requests_it_never_placed() -> None:
    picker = make_picker()
    assert not picker.first_token("made-up", 1.0)
    assert not picker.running("made-up", 1.0, endpoint=FAST)
    assert not picker.finish("made-up", 1.0, endpoint=FAST, failed=True)
    assert picker.traffic(at=1.0)[FAST].in_flight == 0


def test_counts_an_outcome_only_once() -> None:
    picker = make_picker()
    decision = picker.pick(request(), 0.0)
    assert decision is not None
    assert picker.finish(decision.id, 1.0, endpoint=FAST)
    assert not picker.finish(decision.id, 1.0, endpoint=FAST)


def test_gives_up_requests_nobody_reports_and_idle_sessions() -> None:
    picker = make_picker()
    picker.pick(request(session="s"), 0.0)
    assert picker.expire(SETTINGS.silence_seconds - 1) == 0
    assert picker.expire(SETTINGS.silence_seconds + 1) == 1
    assert picker.in_flight == 0
    assert picker.traffic(at=0.0)[FAST].in_flight == 0
    picker.expire(SETTINGS.session_ttl_seconds + 1)
    assert picker._sessions.home("s") is None


def test_knows_nothing_to_pick_among_strangers() -> None:
    assert make_picker().pick(request(candidates=("9.9.9.9:9",)), 0.0) is None
    mixed = make_picker().pick(request(candidates=("9.9.9.9:9", SLOW)), 0.0)
    assert mixed is not None
    assert mixed.endpoints == (SLOW,)


STEP = st.tuples(
    st.sampled_from(["pick", "first_token", "moved", "finish", "fail", "cancel", "expire"]),
    st.integers(0, 40),
    st.sets(st.sampled_from([FAST, SLOW, THIRD]), min_size=1),
    st.booleans(),
)


@given(steps=st.lists(STEP, max_size=60))
def test_whatever_happens_it_stays_among_the_candidates_and_owes_nothing_in_the_end(
    steps: list[tuple[str, int, set[str], bool]],
) -> None:
    picker = make_picker()
    open_picks: list[tuple[str, str]] = []
    for now, (action, n, candidates, streamed) in enumerate(steps):
        if action == "pick":
            decision = picker.pick(
                request(range(n), tuple(sorted(candidates)), streamed=streamed), float(now)
            )
            assert decision is not None
            assert set(decision.endpoints) <= candidates
            assert len(set(decision.endpoints)) == len(decision.endpoints)
            assert decision.predicted_ttft > 0
            open_picks.append((decision.id, decision.endpoints[0]))
        elif action == "expire":
            picker.expire(float(now))
        elif open_picks:
            id_, address = open_picks[n % len(open_picks)]
            if action == "first_token":
                picker.first_token(id_, float(now))
            elif action == "moved":
                picker.running(id_, float(now), endpoint=(FAST, SLOW, THIRD)[n % 3], attempts=2)
            elif action == "cancel":
                open_picks.remove((id_, address))
                picker.cancel(id_, float(now))
            else:
                open_picks.remove((id_, address))
                picker.finish(id_, float(now), endpoint=address, failed=action == "fail")
    for id_, address in open_picks:
        picker.finish(id_, 1000.0, endpoint=address)
    assert picker.in_flight == 0
    for traffic in picker.traffic(at=0.0).values():
        assert traffic.in_flight == 0
