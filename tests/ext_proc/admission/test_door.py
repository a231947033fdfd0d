from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ext_proc.admission.door import RETRY_SPREAD, Admission, Visit
from ext_proc.admission.refusal import Refusal
from ext_proc.picker import Picker
from ext_proc.trust import NOBODY, Caller
from ext_proc.waiting import WaitingRoom
from fleet.model import Load
from fleet.settings import AdmissionSettings, PickerSettings, TenantSettings, TenantsSettings
from tests.ext_proc.small import ENDPOINTS, FAST, SLOW, THIRD, fresh, request

if TYPE_CHECKING:
    from ext_proc.request import RoutingRequest
    from ext_proc.waiting import Held

SHED = AdmissionSettings(shed=True)
LOW, NORMAL, HIGH = -10, 0, 10


class Door:
    """A picker with a waiting room, and everybody let in through `admission`."""

    def __init__(
        self, settings: AdmissionSettings = SHED, tenants: TenantsSettings | None = None, seed: int = 0
    ) -> None:
        self.picker = Picker(PickerSettings(), ENDPOINTS, seed=seed)
        self.room = WaitingRoom(self.picker, longest=120, places=1000)
        self.admission = Admission({"m": settings}, tenants or TenantsSettings(), self.picker, seed)
        self.number = 0

    def ask(self, now: float, **more: object) -> Held | Refusal:
        """A new prompt of 6,400 tokens: 0.33 s on the fast endpoint, 1.3 s on the others."""
        self.number += 1
        asked = request(fresh(self.number), **more)  # type: ignore[arg-type]
        return self.arrive(asked, now)

    def arrive(self, asked: RoutingRequest, now: float) -> Held | Refusal:
        visit = self.admission.visit("m", asked, now)
        if isinstance(visit, Refusal):
            return visit
        held = self.room.arrive(asked, now, visit)
        return held.refused or held

    def load(self, now: float, number: int, **more: object) -> list[Held | Refusal]:
        return [self.ask(now, **more) for _ in range(number)]


def held(found: Held | Refusal) -> Held:
    assert not isinstance(found, Refusal)
    return found


def refused(found: Held | Refusal) -> Refusal:
    assert isinstance(found, Refusal)
    return found


def test_with_everything_off_there_is_nobody_at_the_door() -> None:
    door = Door(AdmissionSettings())
    assert door.admission.visit("m", request(), 0.0) is None
    assert not any(isinstance(found, Refusal) for found in door.load(0.0, 500))


def test_under_overload_the_lowest_are_refused_with_a_time_to_come_again_and_the_others_are_not() -> None:
    door = Door()
    low = door.load(0.0, 60, priority=LOW)
    let_in = [found for found in low if not isinstance(found, Refusal)]
    assert let_in[:5] == low[:5]
    assert 5 < len(let_in) < 60
    last = refused(low[-1])
    assert (last.reason, last.model, last.level) == ("saturated", "m", SHED.levels[0].priority)
    wait = SHED.levels[0].wait_seconds
    assert wait <= last.retry_after <= (1.5 * wait + 1.3) * (1 + RETRY_SPREAD) + 1  # one more got in: 1.3 s
    assert not any(isinstance(found, Refusal) for found in door.load(0.0, 10, priority=NORMAL))


def test_is_the_same_for_the_same_seed() -> None:
    first, second = ([isinstance(f, Refusal) for f in Door(seed=3).load(0.0, 80, priority=LOW)] for _ in "ab")
    assert first == second
    assert any(first)


def test_those_refused_together_are_not_told_to_come_again_together() -> None:
    settings = AdmissionSettings(shed=True, levels=(SHED.levels[1],))
    told = {found.retry_after for found in Door(settings).load(0.0, 400) if isinstance(found, Refusal)}
    assert len(told) > 3


def test_who_is_held_makes_room_for_the_more_important_the_lowest_and_latest_first() -> None:
    door = Door(
        AdmissionSettings(
            shed=True, levels=tuple(level.model_copy(update={"wait_seconds": 2.0}) for level in SHED.levels)
        )
    )
    low = [held(f) for f in door.load(0.0, 20, priority=LOW) if not isinstance(f, Refusal)]
    waiting = [each for each in low if not each.settled]
    assert waiting
    high = held(door.ask(0.1, priority=HIGH))
    assert high.refused is None
    gone = [each for each in waiting if each.refused]
    assert gone == waiting[-len(gone) :]
    assert gone
    assert all(each.refused and each.refused.reason == "displaced" for each in gone)


def test_nobody_makes_room_for_those_of_the_same_priority() -> None:
    door = Door()
    before = [f for f in door.load(0.0, 40, priority=HIGH) if not isinstance(f, Refusal)]
    door.load(0.1, 200, priority=HIGH)
    assert not any(each.refused for each in before)


def test_the_more_important_go_first() -> None:
    door = Door()
    low = [f for f in door.load(0.0, 14, priority=LOW) if not isinstance(f, Refusal)]
    waiting = [each for each in low if not each.settled]
    high = held(door.ask(0.5, priority=HIGH))
    assert waiting
    assert not high.settled
    assert all(high.turn < each.turn for each in waiting)


def test_full_caches_refuse_the_lowest() -> None:
    door = Door()
    for address in (FAST, SLOW, THIRD):
        full = Load(at=0.0, kv_blocks_used=980, kv_blocks_max=1000, tokens_per_block=64, max_requests=100)
        door.picker.observe(address, full, 0.0)
    assert refused(door.ask(0.0, priority=LOW)).reason == "saturated"
    assert held(door.ask(0.0, priority=HIGH)).decision


@pytest.mark.parametrize(
    ("unmet", "priority", "is_refused"),
    [("serve", LOW, False), ("shed", LOW, True), ("shed", NORMAL, False)],
)
def test_where_no_endpoint_can_meet_the_objective_the_settings_say_what_happens(
    unmet: str, priority: int, is_refused: bool
) -> None:
    door = Door(AdmissionSettings.model_validate({"objective_unmet": unmet}))
    in_time = door.ask(0.0, priority=priority, deadline=1.0)
    assert held(in_time).decision
    late = door.ask(0.0, priority=priority, deadline=0.1)
    assert isinstance(late, Refusal) == is_refused
    if is_refused:
        assert refused(late).reason == "objective"


def test_priority_and_objective_are_the_callers_or_the_models() -> None:
    admission = Door(AdmissionSettings(default_priority=5, ttft_objective_ms=2000)).admission
    assert admission.priority("m", NOBODY) == 5
    assert admission.priority("m", Caller(priority=0)) == 0
    assert admission.deadline("m", NOBODY, 10.0) == 12.0
    assert admission.deadline("m", Caller(ttft_objective=0.5), 10.0) == 10.5
    assert Door().admission.deadline("m", NOBODY, 10.0) == float("inf")


BUDGETS = TenantsSettings(budget_tokens=20_000, known=(TenantSettings(name="rich", budget_tokens=10**9),))


def test_a_tenant_over_its_budget_is_refused_and_no_other() -> None:
    door = Door(AdmissionSettings(), BUDGETS)
    found = door.load(0.0, 10, tenant="a")
    assert held(found[0]).decision
    over = refused(found[-1])
    assert (over.reason, over.tenant) == ("budget", "a")
    assert held(door.ask(0.0, tenant="b")).decision
    assert not any(isinstance(f, Refusal) for f in door.load(0.0, 50, tenant="rich"))


def credit(door: Door, tenant: str) -> float:
    budgets = door.admission.budgets
    assert budgets is not None
    return budgets._accounts[tenant].credit


def test_what_a_request_is_counted_with_follows_it_to_its_end() -> None:
    door = Door(AdmissionSettings(), BUDGETS)
    first = held(door.ask(0.0, tenant="rich"))
    assert first.decision
    full = credit(door, "rich") + 6401 + PickerSettings().expected_output_tokens
    door.picker.first_token(first.decision.id, 0.5)
    door.picker.finish(
        first.decision.id, 1.0, endpoint=first.decision.endpoints[0], prompt_tokens=6000, output_tokens=50
    )
    assert credit(door, "rich") == full - 6050
    failed = held(door.ask(2.0, tenant="rich"))
    assert failed.decision
    door.picker.finish(failed.decision.id, 3.0, endpoint=failed.decision.endpoints[0], failed=True)
    assert credit(door, "rich") == full - 6050
    never = held(door.ask(4.0, tenant="rich"))
    assert never.decision
    door.picker.cancel(never.decision.id, 4.0)
    assert credit(door, "rich") == full - 6050
    silent = held(door.ask(5.0, tenant="rich"))
    assert silent.decision
    assert door.picker.expire(1000.0) == 1
    assert credit(door, "rich") < full - 2 * 6050  # somebody may well have answered it
    assert door.admission._charges == {}


def test_who_leaves_while_held_or_is_refused_is_not_counted() -> None:
    door = Door(SHED, BUDGETS)
    while True:
        last = held(door.ask(0.0, tenant="rich", priority=HIGH))
        if not last.settled:
            break
    before = credit(door, "rich")
    door.room.leave(last)
    assert credit(door, "rich") == before + 6401 + PickerSettings().expected_output_tokens
    again = credit(door, "rich")
    low = door.load(0.0, 200, tenant="rich", priority=LOW)
    let_in = sum(not isinstance(f, Refusal) for f in low)
    assert let_in < 200
    each = 6401 + PickerSettings().expected_output_tokens
    assert credit(door, "rich") == pytest.approx(again - let_in * each)


def test_a_visit_is_all_that_the_waiting_room_needs() -> None:
    visit = Door().admission.visit("m", request(), 0.0)
    assert isinstance(visit, Visit)
    assert visit.head_start == SHED.levels[1].head_start_seconds
