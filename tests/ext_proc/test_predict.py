from __future__ import annotations

import pytest

from ext_proc.endpoint import EndpointState
from ext_proc.predict import Prediction, predict
from fleet.ledger import REQUEST_OVERHEAD_SECONDS, SLOWDOWN_PER_DECODE
from fleet.model import Endpoint, Hardware, Load, Rate

RATE, TPOT = 10_000.0, 0.02
OUTPUT_TOKENS = 100


def state(decodes: int = 0, slots: int | None = None) -> EndpointState:
    """An endpoint with so many answers under way; without `slots` it was never scraped."""
    made = EndpointState(
        Endpoint("10.0.0.1:80", "m", "v", "p", Hardware("H100-80GB"), prior=Rate(RATE, TPOT)),
        news_delay=0.5,
        stale_after=10.0,
    )
    for n in range(decodes):
        made.ledger.place(f"decode-{n}", 0, 0.0, observable=True)
        made.ledger.first_token(f"decode-{n}", 0.0)
    if slots is not None:
        made.observe(Load(at=0.0, max_requests=slots), 0.0)
    return made


def ask(of: EndpointState, prompt: float = 1_000, matched: float = 0, now: float = 0.0) -> Prediction:
    return predict(of, prompt, matched, OUTPUT_TOKENS, now)


def test_an_idle_endpoint_takes_the_prompts_own_time() -> None:
    found = ask(state())
    assert (found.prefill_wait, found.room_wait) == (0, 0)
    assert found.ttft == found.prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 1_000 / RATE)


def test_matched_tokens_cost_nothing() -> None:
    found = ask(state(), prompt=1_000, matched=900)
    assert found.matched_tokens == 900
    assert found.prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 100 / RATE)


def test_waits_for_the_prompts_before_it() -> None:
    busy = state()
    busy.ledger.place("one", 2_000, 0.0, observable=True)
    busy.ledger.place("two", 3_000, 0.0, observable=True)
    assert ask(busy).prefill_wait == pytest.approx(2 * REQUEST_OVERHEAD_SECONDS + 5_000 / RATE)
    assert ask(busy, now=0.1).prefill_wait == pytest.approx(ask(busy).prefill_wait - 0.1)


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


def test_wait_and_own_time_and_room_wait_add_up() -> None:
    busy = state(decodes=4, slots=4)
    busy.ledger.place("one", 2_000, 0.0, observable=True)
    found = ask(busy)
    assert min(found.prefill_wait, found.prefill, found.room_wait) > 0
    assert found.ttft == found.prefill_wait + found.prefill + found.room_wait


def test_an_overdue_prefill_never_makes_a_time_negative() -> None:
    busy = state()
    busy.ledger.place("lost", 2_000, 0.0, observable=True)
    found = ask(busy, now=1_000.0)
    assert found.prefill_wait == 0
    assert found.ttft == found.prefill > 0


def test_follows_the_learned_rate() -> None:
    slow = state()
    slow.rates.prefill = RATE / 4
    assert ask(slow).rate == RATE / 4
    assert ask(slow).prefill == pytest.approx(REQUEST_OVERHEAD_SECONDS + 4_000 / RATE)
