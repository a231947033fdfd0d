from __future__ import annotations

import pytest

from ext_proc.picker import Picker
from ext_proc.predict import LORA_LOAD_SECONDS
from fleet.model import Load
from fleet.settings import PickerSettings
from tests.ext_proc.small import (
    ENDPOINTS,
    FAST,
    SETTINGS,
    SLOW,
    THIRD,
    TOKENS,
    TPOT,
    fresh,
    make_picker,
    pick,
    request,
)


def test_learns_that_an_endpoint_is_slower_than_its_hardware_says() -> None:
    picker = make_picker()
    now = 0.0
    for n in range(40):
        decision = pick(picker, request(fresh(n), candidates=(FAST,)), now)
        now += 0.008 + 6401 / 4_000  # a fifth of the prior
        picker.first_token(decision.id, now)
        picker.finish(decision.id, now + 0.1, endpoint=FAST)
        now += 1.0
    assert picker.rates(at=now)[FAST].prefill == pytest.approx(4_000, rel=0.05)
    decision = pick(picker, request(range(90_000, 90_100)), now)
    assert decision.endpoints[0] != FAST


def test_cached_tokens_correct_the_work_that_a_first_token_stood_for() -> None:
    picker = make_picker()
    decision = pick(picker, request(candidates=(FAST,)), 0.0)
    picker.first_token(decision.id, 0.008 + 0.032)  # a tenth was computed: the engine knew the rest
    picker.finish(decision.id, 0.1, endpoint=FAST, prompt_tokens=1000, cached_tokens=900, output_tokens=5)
    picker.expire(10.0)
    assert picker.rates(at=1.0)[FAST].prefill == pytest.approx(20_000, rel=0.02)
    assert picker.traffic(at=1.0)[FAST].match_ratio == pytest.approx(0.9)


def test_a_correction_that_comes_long_after_the_first_token_still_counts() -> None:
    picker = make_picker()
    for n in range(20):
        now = n * 100.0
        warm = pick(picker, request(candidates=(FAST,)), now)
        at = now + 0.008 + 6400 / 20_000  # computed in full: this engine keeps no cache
        picker.first_token(warm.id, at)
        for later in range(1, 9):
            picker.running(warm.id, at + later)
            picker.expire(at + later)
        picker.finish(warm.id, at + 9, endpoint=FAST, prompt_tokens=6401, cached_tokens=0)
    assert picker.rates(at=1.0)[FAST].prefill == pytest.approx(20_000, rel=0.05)
    again = pick(picker, request(candidates=(FAST,)), 5000.0)
    assert again.matched_tokens < 0.2 * 6400  # and its matches are hardly believed any more


def test_learns_the_time_per_token_from_the_time_the_answer_took_on_the_wire() -> None:
    picker = make_picker()
    for n in range(100):
        decision = pick(picker, request(fresh(n), candidates=(FAST,)), n * 10.0)
        picker.first_token(decision.id, n * 10.0 + 0.4)
        picker.finish(decision.id, n * 10.0 + 9.0, endpoint=FAST, decode_seconds=2.0, output_tokens=101)
        picker.expire(n * 10.0 + 9.5)
    assert picker.rates(at=1.0)[FAST].tpot == pytest.approx(0.02, rel=0.02)


def test_a_prefill_that_was_given_up_teaches_nothing_of_those_behind_it() -> None:
    picker = make_picker()
    for n in range(10):
        now = n * 100.0
        long = pick(picker, request(range(n * 10_000, n * 10_000 + 1500), candidates=(FAST,)), now)
        short = pick(picker, request(fresh(500 + n), candidates=(FAST,)), now)
        picker.finish(long.id, now + 4.0, endpoint=FAST, answered=False)  # its client left
        picker.first_token(short.id, now + 5.0)
        picker.finish(short.id, now + 6.0, endpoint=FAST)
        picker.expire(now + 10.0)
    assert picker.rates(at=1.0) == {}


def test_a_refused_request_says_nothing_of_speed_health_or_cache() -> None:
    picker = make_picker()
    for n in range(50):
        decision = pick(picker, request(fresh(n), candidates=(SLOW,)), float(n))
        picker.finish(decision.id, n + 0.001, endpoint=SLOW, answered=False)
        picker.expire(n + 0.9)
    assert picker.rates(at=1.0) == {}
    again = pick(picker, request(fresh(7), candidates=(SLOW,)), 99.0)
    assert again.matched_tokens == 0
    assert picker.traffic(at=1.0)[SLOW].match_ratio is None


def test_an_ejected_endpoint_is_back_with_the_first_token_of_its_probe_and_not_by_an_abandoned_one() -> None:
    picker = make_picker()
    for n in range(2):
        failing = pick(picker, request(fresh(n), candidates=(FAST,)), 0.0)
        picker.finish(failing.id, 0.1, endpoint=FAST, failed=True)
    abandoned = pick(picker, request(fresh(5)), 2.0)
    assert abandoned.endpoints[0] == FAST
    picker.finish(abandoned.id, 3.0, endpoint=FAST, answered=False)
    still_out = pick(picker, request(fresh(6)), 3.1)
    assert FAST not in still_out.endpoints
    probe = pick(picker, request(fresh(7)), 8.0)
    assert probe.endpoints[0] == FAST
    picker.first_token(probe.id, 8.4)
    back = pick(picker, request(fresh(8)), 8.5)
    assert back.endpoints[0] == FAST


def test_a_prompt_that_was_never_computed_is_not_believed_to_be_cached() -> None:
    for end in ("failed", "cancelled", "moved"):
        picker = make_picker()
        decision = pick(picker, request(candidates=(FAST, SLOW)), 0.0)
        if end == "failed":
            picker.finish(decision.id, 0.1, endpoint=FAST, failed=True)
        elif end == "cancelled":
            picker.cancel(decision.id, 0.1)
        else:
            picker.running(decision.id, 0.1, endpoint=SLOW, attempts=2)
        again = pick(picker, request(candidates=(FAST,)), 5.0)
        assert again.matched_tokens == 0, end


def test_blames_all_that_envoy_stepped_over_on_its_way_out_of_the_list() -> None:
    picker = Picker(PickerSettings(endpoints_per_pick=1), ENDPOINTS)
    for n in range(2):
        decision = pick(picker, request(fresh(n)), 0.0)
        assert decision.endpoints == (FAST,)
        picker.running(decision.id, 0.1, endpoint=SLOW, attempts=2)
        picker.finish(decision.id, 1.0, endpoint=SLOW)
    after = pick(picker, request(fresh(9)), 1.0)
    assert after.endpoints[0] != FAST


def test_blames_nobody_where_envoy_did_not_take_the_list_at_all() -> None:
    picker = Picker(PickerSettings(endpoints_per_pick=1), ENDPOINTS)
    for n in range(5):
        decision = pick(picker, request(fresh(n)), 0.0)
        picker.running(decision.id, 0.1, endpoint=SLOW)
        picker.finish(decision.id, 1.0, endpoint=SLOW)
    after = pick(picker, request(fresh(9)), 1.0)
    assert after.endpoints[0] == FAST


def test_an_answer_that_is_not_streamed_never_trains_the_rate() -> None:
    picker = make_picker()
    decision = pick(picker, request(candidates=(FAST,), streamed=False), 0.0)
    assert picker.first_token(decision.id, 30.0)
    picker.finish(decision.id, 30.0, endpoint=FAST)
    picker.expire(60.0)
    assert picker.rates(at=1.0) == {}


def test_leaves_out_an_endpoint_after_two_failures_and_probes_it_later() -> None:
    picker = make_picker()
    for n in range(2):
        decision = pick(picker, request(fresh(10 + n)), 0.0)
        assert decision.endpoints[0] == FAST
        picker.finish(decision.id, 0.1, endpoint=decision.endpoints[1])  # Envoy had to step over it
    later = pick(picker, request(fresh(2)), 0.2)
    assert FAST not in later.endpoints
    probe = pick(picker, request(fresh(3)), 2.0)
    assert probe.endpoints[0] == FAST
    during = pick(picker, request(fresh(4)), 2.1)
    assert FAST not in during.endpoints
    picker.finish(probe.id, 2.2, endpoint=FAST)
    after = pick(picker, request(fresh(5)), 2.3)
    assert after.endpoints[0] == FAST


def test_forgets_the_blocks_of_an_endpoint_it_ejects() -> None:
    picker = make_picker()
    warm = pick(picker, request(candidates=(SLOW,)), 0.0)
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    for _ in range(2):
        failing = pick(picker, request(range(0), candidates=(SLOW,)), 1.0)
        picker.finish(failing.id, 1.1, endpoint=SLOW, failed=True)
    back = pick(picker, request(candidates=(SLOW,)), 9.0)
    assert back.matched_tokens == 0


def test_follows_a_request_that_envoy_retried_to_the_endpoint_that_serves_it() -> None:
    picker = make_picker()
    decision = pick(picker, request(), 0.0)
    first, second, _ = decision.endpoints
    assert picker.running(decision.id, 0.5, endpoint=second, attempts=2)
    in_flight = {a: t.in_flight for a, t in picker.traffic(at=0.0).items()}
    assert (in_flight[first], in_flight[second]) == (0, 1)
    picker.first_token(decision.id, 1.0)
    picker.finish(decision.id, 2.0, endpoint=second)
    picker.expire(10.0)
    assert picker.rates(at=1.0) == {}  # the time since placing was not this endpoint's alone
    again = pick(picker, request(range(110), candidates=(second,)), 10.0)
    assert again.matched_tokens == 100 * TOKENS


def test_blames_a_failed_endpoint_once_per_request_however_often_the_log_speaks_of_it() -> None:
    picker = make_picker()
    decision = pick(picker, request(), 0.0)
    for now in (0.5, 1.0, 1.5):
        picker.running(decision.id, now, endpoint=decision.endpoints[1], attempts=2)
    picker.finish(decision.id, 2.0, endpoint=decision.endpoints[1])
    later = pick(picker, request(fresh(7)), 2.0)
    assert later.endpoints[0] == FAST  # one failure ejects nobody


def test_takes_a_decision_back_that_nobody_heard_of() -> None:
    picker = make_picker()
    decision = pick(picker, request(), 0.0)
    picker.cancel(decision.id, 0.1)
    picker.cancel(decision.id, 0.1)
    assert picker.in_flight == 0
    assert not picker.finish(decision.id, 1.0, endpoint=FAST)


def test_a_long_answer_stays_as_long_as_the_log_speaks_of_it() -> None:
    picker = make_picker()
    decision = pick(picker, request(), 0.0)
    now = 0.0
    while now < 4 * SETTINGS.silence_seconds:
        now += SETTINGS.silence_seconds / 2
        assert picker.running(decision.id, now)
        assert picker.expire(now) == 0
    assert picker.expire(now + SETTINGS.silence_seconds) == 1


def test_ignores_news_of_requests_it_never_placed() -> None:
    picker = make_picker()
    assert not picker.first_token("made-up", 1.0)
    assert not picker.running("made-up", 1.0, endpoint=FAST)
    assert not picker.finish("made-up", 1.0, endpoint=FAST, failed=True)
    assert picker.traffic(at=1.0)[FAST].in_flight == 0


def test_counts_an_outcome_only_once() -> None:
    picker = make_picker()
    decision = pick(picker, request(), 0.0)
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


def test_a_lost_request_is_given_up_by_all_replicas_and_counted_by_the_one_that_placed_it() -> None:
    one, two = make_picker(name="one"), make_picker(name="two")
    two.apply(pick(one, request(), 0.0).placed, 0.0)
    after = SETTINGS.silence_seconds + 1
    assert [picker.expire(after) for picker in (one, two)] == [1, 0]
    assert one.in_flight == two.in_flight == 0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_trusts_an_endpoints_matches_as_far_as_the_engine_confirms_them(share: float) -> None:
    picker = make_picker()
    warm = pick(picker, request(candidates=(FAST,)), 0.0)
    picker.finish(warm.id, 1.0, endpoint=FAST)
    for n in range(1, 80):
        again = pick(picker, request(candidates=(FAST,)), n * 10.0)
        cached = int(share * 6400)
        picker.finish(again.id, n * 10.0 + 1, endpoint=FAST, prompt_tokens=6401, cached_tokens=cached)
    last = pick(picker, request(candidates=(FAST,)), 5000.0)
    assert last.matched_tokens == pytest.approx(share * 6400, rel=0.01)


def test_an_engine_that_cached_more_than_was_believed_is_trusted_and_no_more() -> None:
    picker = make_picker()
    for n in range(20):
        decision = pick(picker, request(candidates=(FAST,)), n * 10.0)
        picker.finish(
            decision.id, n * 10.0 + 1, endpoint=FAST, prompt_tokens=6401, cached_tokens=9_000, output_tokens=1
        )
    assert pick(picker, request(candidates=(FAST,)), 500.0).matched_tokens == 6400


def test_a_silent_request_that_had_begun_to_answer_leaves_its_prompt_in_the_cache() -> None:
    for began, matched in ((True, 6400), (False, 0)):
        picker = make_picker()
        decision = pick(picker, request(candidates=(FAST,)), 0.0)
        if began:
            picker.first_token(decision.id, 0.4)
        assert picker.expire(SETTINGS.silence_seconds + 1) == 1
        assert pick(picker, request(candidates=(FAST,)), 30.0).matched_tokens == matched


def test_a_log_that_does_not_count_attempts_blames_nobody() -> None:
    picker = Picker(PickerSettings(endpoints_per_pick=2), ENDPOINTS)
    for n in range(4):
        decision = pick(picker, request(fresh(n)), n * 0.3)
        assert decision.endpoints[0] == FAST
        outside = next(a for a in (SLOW, THIRD) if a not in decision.endpoints)
        picker.running(decision.id, n * 0.3 + 0.1, endpoint=outside, attempts=0)
        picker.finish(decision.id, n * 0.3 + 0.2, endpoint=outside, answered=False)


def test_a_request_that_moves_makes_its_new_endpoint_load_the_adapter() -> None:
    picker = make_picker()
    decision = pick(picker, request(lora="sql"), 0.0)
    second = decision.endpoints[1]
    picker.running(decision.id, 0.1, endpoint=second, attempts=2)
    again = pick(picker, request(fresh(1), candidates=(second,), lora="sql"), 1.0)
    assert again.reasons[0].prediction.detour == 0


def test_expects_answers_as_long_as_they_were() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, max_requests=1), now=0.0)
    for n in range(5):
        answered = pick(picker, request(fresh(n), candidates=(FAST,)), float(n))
        picker.finish(answered.id, n + 0.5, endpoint=FAST, output_tokens=50)
    pick(picker, request(fresh(8), candidates=(FAST,)), 9.0)
    waiting = pick(picker, request(fresh(9), candidates=(FAST,)), 9.0)
    assert waiting.reasons[0].prediction.room_wait == pytest.approx(50 * TPOT)


def test_an_endpoint_that_comes_back_has_lost_its_adapters() -> None:
    picker = make_picker()
    for n in range(2):
        failing = pick(picker, request(fresh(n), candidates=(SLOW,), lora="sql"), 0.0)
        picker.finish(failing.id, 0.1, endpoint=SLOW, failed=True)
    back = pick(picker, request(fresh(5), candidates=(SLOW,), lora="sql"), 9.0)
    assert back.reasons[0].prediction.detour == LORA_LOAD_SECONDS
