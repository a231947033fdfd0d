from __future__ import annotations

import pytest

from ext_proc.endpoint import EndpointState
from ext_proc.predict import CROSS_ZONE_SECONDS, LORA_LOAD_SECONDS, Prediction, predict
from ext_proc.request import RoutingRequest
from fleet.cost_model import SLOWDOWN_PER_DECODE, CostModel
from fleet.ledger import REQUEST_OVERHEAD_SECONDS
from fleet.model import Load
from tests.ext_proc.small import FAST, TPOT, endpoint, make_state

RATE = 10_000.0
OUTPUT_TOKENS = 100
BLOCK = 10


def state(decodes: int = 0, slots: int | None = None) -> EndpointState:
    """An endpoint with so many answers under way; without `slots` it was never scraped."""
    made = make_state(rate=RATE)
    for n in range(decodes):
        made.ledger.place(f"decode-{n}", 0, 0.0, observable=True)
        made.ledger.first_token(f"decode-{n}", 0.0)
    if slots is not None:
        made.observe(Load(at=0.0, max_requests=slots), 0.0)
    return made


def ask(of: EndpointState, prompt: float = 1_000, blocks: int = 0, now: float = 0.0) -> Prediction:
    return predict(of, RoutingRequest((FAST,), prompt, (), BLOCK), blocks, OUTPUT_TOKENS, now)


def test_an_idle_endpoint_takes_the_prompts_own_time() -> None:
    found = ask(state())
    assert (found.prefill_wait, found.room_wait, found.detour) == (0, 0, 0)
    assert found.ttft == found.prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 1_000 / RATE)


def test_matched_tokens_cost_nothing() -> None:
    found = ask(state(), prompt=1_000, blocks=90)
    assert (found.believed_tokens, found.matched_tokens, found.uncached_tokens) == (900, 900, 100)
    assert found.prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 100 / RATE)


def test_a_match_counts_as_far_as_the_endpoint_is_trusted() -> None:
    doubted = state()
    doubted.trust = 0.5
    found = ask(doubted, prompt=1_000, blocks=80)
    assert (found.believed_tokens, found.matched_tokens, found.uncached_tokens) == (800, 400, 600)


def test_a_prompt_that_is_all_cached_still_computes_its_last_token() -> None:
    assert ask(state(), prompt=1_000, blocks=100).uncached_tokens == 1


def test_tokens_late_in_a_long_prompt_are_dearer_once_that_is_learned() -> None:
    costs = CostModel()
    costs.context = 1e-4
    learned = make_state(rate=RATE, costs=costs)
    late = ask(learned, prompt=2_000, blocks=100)
    early = ask(learned, prompt=1_000)
    assert late.uncached_tokens == early.uncached_tokens == 1_000
    assert late.work / early.work == pytest.approx(1.15 / 1.05)


def test_waits_for_the_prompts_before_it() -> None:
    busy = state()
    busy.ledger.place("one", 2_000, 0.0, observable=True)
    busy.ledger.place("two", 3_000, 0.0, observable=True)
    queue = 2 * REQUEST_OVERHEAD_SECONDS + 5_000 / RATE
    assert ask(busy).prefill_wait == pytest.approx(queue, rel=0.03)
    assert ask(busy, now=0.3).prefill_wait == pytest.approx(queue - 0.3, rel=0.08)


def test_running_decodes_slow_every_prefill() -> None:
    slowdown = 1 + 10 * SLOWDOWN_PER_DECODE
    assert ask(state(decodes=10)).prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + slowdown * 1_000 / RATE)


@pytest.mark.parametrize(("decodes", "turns"), [(3, 0), (4, 1), (7, 4)])
def test_waits_for_a_batch_slot_only_where_none_is_free(decodes: int, turns: int) -> None:
    per_turn = OUTPUT_TOKENS * TPOT / 4
    assert ask(state(decodes, slots=4)).room_wait == pytest.approx(turns * per_turn)


@pytest.mark.parametrize("slots", [None, 0])
def test_an_engine_that_does_not_tell_its_slots_has_enough(slots: int | None) -> None:
    assert ask(state(decodes=50, slots=slots)).room_wait == 0


def test_the_wait_for_room_follows_the_learned_time_per_token() -> None:
    full = state(4, slots=4)
    before = ask(full).room_wait
    full.decoding.tpot *= 3
    assert ask(full).room_wait == pytest.approx(3 * before)


@pytest.mark.parametrize(
    ("asked_from", "runs_in", "seconds"),
    [("a", "b", CROSS_ZONE_SECONDS), ("a", "a", 0), ("", "b", 0), ("a", "", 0)],
)
def test_another_zone_is_a_detour_where_both_are_known(asked_from: str, runs_in: str, seconds: float) -> None:
    there = EndpointState(endpoint(FAST, RATE, zone=runs_in), CostModel(), 0.5, 10.0)
    found = predict(there, RoutingRequest((FAST,), 1_000, (), BLOCK, zone=asked_from), 0, 100, 0.0)
    assert found.detour == seconds
    assert found.ttft == found.prefill + seconds


def test_an_adapter_is_fetched_once() -> None:
    there = state()
    asked = RoutingRequest((FAST,), 1_000, (), BLOCK, lora="sql")
    assert predict(there, asked, 0, 100, 0.0).detour == LORA_LOAD_SECONDS
    there.residency.placed("sql")
    assert predict(there, asked, 0, 100, 0.0).detour == 0


def test_all_waits_and_its_own_time_add_up() -> None:
    busy = state(decodes=4, slots=4)
    busy.ledger.place("one", 2_000, 0.0, observable=True)
    asked = RoutingRequest((FAST,), 1_000, (), BLOCK, lora="sql")
    found = predict(busy, asked, 0, OUTPUT_TOKENS, 0.0)
    parts = (found.prefill_wait, found.prefill, found.room_wait, found.detour)
    assert min(parts) > 0
    assert found.ttft == pytest.approx(sum(parts))


def test_an_endpoint_that_is_overdue_is_avoided_the_more_the_later_it_is() -> None:
    busy = state()
    busy.ledger.place("lost", 2_000, 0.0, observable=True)
    waits = [ask(busy, now=now).prefill_wait for now in (0.0, 0.2, 1.0, 2.0, 10.0)]
    assert min(waits) > 0
    assert waits[0] > waits[1]  # it works the queue off,
    assert waits[1] < waits[2] < waits[3] < waits[4]  # and then is late


def test_follows_the_learned_rate() -> None:
    slow = state()
    slow.rates.prefill = RATE / 4
    assert ask(slow).rate == RATE / 4
    assert ask(slow).prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 4_000 / RATE)
