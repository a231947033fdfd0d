from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.events import Ended
from fleet.model import Load
from tests.ext_proc.small import (
    FAST,
    SLOW,
    THIRD,
    TOKENS,
    fresh,
    make_picker,
    pick,
    request,
)


def test_picks_the_fastest_when_all_are_idle_and_cold() -> None:
    decision = pick(make_picker(), request(), 0.0)
    assert decision.endpoints[0] == FAST
    assert decision.predicted_ttft == pytest.approx(0.008 + 6401 / 20_000)
    assert sorted(decision.endpoints) == sorted((FAST, SLOW, THIRD))


def test_goes_where_the_prefix_is_even_if_that_endpoint_is_slower() -> None:
    picker = make_picker()
    first = pick(picker, request(candidates=(SLOW,)), 0.0)
    picker.finish(first.id, 5.0, endpoint=SLOW)
    second = pick(picker, request(range(110)), 5.0)
    assert second.endpoints[0] == SLOW
    assert second.matched_tokens == 100 * TOKENS


def test_leaves_the_prefix_when_the_queue_there_costs_more_than_it_saves() -> None:
    picker = make_picker()
    warm = pick(picker, request(range(10), candidates=(SLOW,)), 0.0)
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    picker.pick(request(range(1000, 2000), candidates=(SLOW,)), 1.0)  # 12.8 s of work
    decision = pick(picker, request(range(10)), 1.0)
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
        first = pick(picker, request(range(0), candidates=equals, session="s"), 0.0)
        picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
        second = pick(picker, request(range(0), candidates=equals, session="s"), 2.0)
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


def test_old_news_of_a_full_cache_keeps_nobody_away() -> None:
    picker = make_picker()
    full = Load(at=0.0, kv_blocks_max=1000, kv_blocks_used=1000, tokens_per_block=10)
    picker.observe(FAST, full, now=0.0)
    decision = pick(picker, request(candidates=(FAST,)), 11.0)
    assert decision.reasons[0].prediction.room_wait == 0


def test_uses_what_there_is_when_every_endpoint_is_ejected() -> None:
    picker = make_picker()
    for address in (FAST, SLOW, THIRD):
        picker.observe(address, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    assert picker.pick(request(), 0.0) is not None


def test_avoids_an_endpoint_that_the_collector_found_down() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    decision = pick(picker, request(), 0.0)
    assert FAST not in decision.endpoints


def test_no_longer_believes_that_an_endpoint_is_down_once_the_collector_is_silent() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, ready=False, reason="connection refused"), now=0.0)
    decision = pick(picker, request(), 11.0)
    assert decision.endpoints[0] == FAST


def test_believes_in_no_more_blocks_than_the_engine_has_room_for() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, kv_blocks_max=100, tokens_per_block=32), now=0.0)  # 50 of our blocks
    pick(picker, request(candidates=(FAST,)), 0.0)
    again = pick(picker, request(candidates=(FAST,)), 1.0)
    assert again.matched_tokens == 50 * TOKENS


def test_waits_for_a_batch_slot_where_all_are_taken() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, max_requests=2), now=0.0)
    for n in range(2):
        decision = pick(picker, request(range(n * 10, n * 10 + 1), candidates=(FAST,)), 0.0)
        picker.first_token(decision.id, 0.5)
    full = pick(picker, request(range(500, 501), candidates=(FAST,)), 1.0)
    assert full.reasons[0].prediction.room_wait == pytest.approx(256 * 0.01 / 2)


def test_waits_for_kv_space_where_the_prompt_does_not_fit_beside_the_running_answers() -> None:
    picker = make_picker()
    picker.observe(FAST, Load(at=0.0, kv_blocks_max=1000, kv_blocks_used=900, tokens_per_block=10), now=0.0)
    decision = pick(picker, request(range(100), candidates=(FAST,)), 0.0)
    missing = (6401 + 256 - 1000) / 9000  # of the space that running answers hold
    assert decision.reasons[0].prediction.room_wait == pytest.approx(missing * 256 * 0.01)


def test_an_endpoint_found_down_comes_back_with_an_empty_cache() -> None:
    picker = make_picker()
    warm = pick(picker, request(candidates=(SLOW,)), 0.0)
    picker.finish(warm.id, 1.0, endpoint=SLOW)
    picker.observe(SLOW, Load(at=0.0, ready=False, reason="connection refused"), now=2.0)
    picker.observe(SLOW, Load(at=0.0), now=5.0)
    back = pick(picker, request(candidates=(SLOW,)), 5.0)
    assert back.matched_tokens == 0


def test_knows_nothing_to_pick_among_strangers() -> None:
    assert make_picker().pick(request(candidates=("9.9.9.9:9",)), 0.0) is None
    mixed = pick(make_picker(), request(candidates=("9.9.9.9:9", SLOW)), 0.0)
    assert mixed.endpoints == (SLOW,)


def test_goes_only_where_the_model_is_loaded_if_anybody_says_so() -> None:
    picker = make_picker()
    picker.observe_loaded(FAST, ["other"], None)
    asked = replace(request(), model="m")
    assert FAST not in pick(picker, asked, 0.0).endpoints
    assert pick(picker, replace(asked, model=""), 0.0).endpoints[0] == FAST
    for address in (SLOW, THIRD):
        picker.observe_loaded(address, ["other"], None)
    assert pick(picker, asked, 1.0).endpoints  # nobody has it, as far as is known: engines decide


def test_believes_a_rate_that_is_known_from_elsewhere() -> None:
    picker = make_picker()
    picker.believe(THIRD, 80_000)
    picker.believe("9.9.9.9:9", 80_000)
    decision = pick(picker, request(), 0.0)
    assert decision.endpoints[0] == THIRD
    assert decision.reasons[0].prediction.rate == 80_000


def test_finds_nobody_equal_to_an_endpoint_that_holds_much_more_of_the_prompt() -> None:
    for seed in range(10):
        picker = make_picker(seed)
        warm = pick(picker, request(candidates=(SLOW,)), 0.0)
        picker.finish(warm.id, 5.0, endpoint=SLOW)
        assert pick(picker, request(candidates=(SLOW, THIRD)), 5.0).endpoints[0] == SLOW


def test_a_rate_that_cannot_be_is_not_believed() -> None:
    picker = make_picker()
    before = picker._endpoints[FAST].rates.prefill
    for rate in (0.0, -5.0, float("nan"), float("inf")):
        picker.believe(FAST, rate)
        assert picker._endpoints[FAST].rates.prefill == before
    picker.believe(FAST, 12_345.0)
    assert picker._endpoints[FAST].rates.prefill == 12_345.0


def test_a_candidate_named_twice_is_listed_once() -> None:
    assert sorted(pick(make_picker(), request(candidates=(FAST, FAST, SLOW)), 0.0).endpoints) == [FAST, SLOW]


def test_an_empty_prompt_still_has_one_token_to_compute() -> None:
    decision = pick(make_picker(), replace(request(range(0)), prompt_tokens=0.0), 0.0)
    assert {found.prediction.uncached_tokens for found in decision.reasons} == {1.0}


def test_an_objective_outweighs_the_price_of_those_that_miss_it() -> None:
    for seed in range(5):
        picker = make_picker(seed)
        for n in range(4):
            pick(picker, request(fresh(n), candidates=(FAST,)), 0.0)  # 1.3 s of queue
        batch = replace(request(fresh(9)), workload_class="batch")
        assert pick(picker, replace(batch, deadline=1.5), 0.0).predicted_ttft <= 1.5
    assert pick(picker, replace(batch, deadline=0.001), 0.0).endpoints  # best effort


def test_says_how_full_the_caches_are_of_those_that_tell() -> None:
    picker = make_picker()
    everybody = (FAST, SLOW, THIRD, "10.9.9.9:1")
    assert picker.kv_share(everybody, 0.0) == 0
    picker.observe(FAST, Load(0.0, kv_blocks_used=10, kv_blocks_max=1000, tokens_per_block=64), 0.0)
    picker.observe(SLOW, Load(0.0, kv_blocks_used=500, kv_blocks_max=1000, tokens_per_block=64), 0.0)
    assert picker.kv_share(everybody, 1.0) == pytest.approx(510 / 2000)
    pick(picker, request(fresh(1), candidates=(FAST,)), 1.0)
    assert picker.kv_share(everybody, 1.0) > 0.29  # 100 blocks and the answer are on their way
    assert picker.kv_share(everybody, 1000.0) == 0  # too long ago


def test_tells_whoever_asks_what_became_of_each_pick_once() -> None:
    picker = make_picker()
    told: list[tuple[str, Ended | None]] = []
    picker.when_over = lambda id_, ended, _now: told.append((id_, ended))
    ids = [pick(picker, request(fresh(n)), 0.0).id for n in range(4)]
    picker.cancel(ids[0], 1.0)
    picker.finish(ids[1], 1.0, endpoint=FAST, output_tokens=5, prompt_tokens=9)
    picker.finish(ids[1], 1.0)
    picker.apply(Ended(ids[2], 2.0, failed=True), 2.0)
    picker.expire(1000.0)
    assert [id_ for id_, _ in told] == ids
    assert told[0][1] is None
    assert told[1][1] == Ended(ids[1], 1.0, FAST, output_tokens=5, prompt_tokens=9)
    assert told[2][1] is not None
    assert told[2][1].failed
    assert told[3][1] == Ended(ids[3], 1000.0)
