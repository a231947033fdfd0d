from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.admission.refusal import Refusal
from ext_proc.events import Standing, Waits
from ext_proc.picker import Picker
from ext_proc.replicas import SILENCE_SECONDS
from ext_proc.waiting import FED_SECONDS, SHORT_BACKLOG, YIELD, Held, WaitingRoom
from fleet.settings import PickerSettings
from tests.ext_proc.small import FAST, SLOW, THIRD, TOKENS, endpoint, fresh, make_picker, pick, request

if TYPE_CHECKING:
    from ext_proc.choice import Considered
    from ext_proc.decision import Decision
    from ext_proc.request import RoutingRequest

LONGEST = 30.0


def make_room(picker: Picker | None = None, longest: float = LONGEST, places: int = 100) -> WaitingRoom:
    return WaitingRoom(picker or make_picker(), longest, places)


def big(number: int, address: str, blocks: int = 400) -> RoutingRequest:
    """A prompt of nothing known that may go to one endpoint only: 25,600 tokens, 1.3 s on the fast one."""
    return request(range(number * 1000, number * 1000 + blocks), candidates=(address,))


def fill(room: WaitingRoom, *addresses: str, at: float = 0.0) -> dict[str, str]:
    """A big prompt at each; the ids of their picks."""
    held = {address: room.arrive(big(900 + n, address), at) for n, address in enumerate(addresses)}
    assert all(h.settled for h in held.values())
    return {address: h.decision.id for address, h in held.items() if h.decision}


def went_to(held: Held) -> str:
    assert held.settled
    assert held.decision is not None
    return held.decision.endpoints[0]


def test_sends_a_request_at_once_where_an_endpoint_is_ready() -> None:
    room = make_room()
    assert went_to(room.arrive(request(), 0.0)) == FAST
    assert len(room) == 0


def test_holds_a_request_while_every_queue_is_long_and_sends_it_when_one_is_short() -> None:
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST, SLOW, THIRD)
    held = room.arrive(request(fresh(1)), 0.1)
    room.dispatch(0.2)
    assert not held.settled
    picker.cancel(ids[FAST], 0.3)
    room.dispatch(0.3)
    assert went_to(held) == FAST
    assert len(room) == 0


def test_holds_a_request_for_the_endpoint_that_answers_first_though_others_are_idle() -> None:
    picker = make_picker()
    room = make_room(picker)
    known = request(range(50_000, 50_600))  # 1.9 s on the fast one, 7.7 s on the others, where it is new
    first = pick(picker, known, 0.0)
    picker.first_token(first.id, 2.0)
    picker.finish(first.id, 3.0, endpoint=FAST)
    fill(room, FAST, at=100.0)
    held = room.arrive(known, 100.0)
    assert not held.settled
    room.dispatch(101.0)
    assert went_to(held) == FAST


def test_holds_nobody_for_what_should_be_over_though_no_news_of_it_came() -> None:
    picker = make_picker()
    room = make_room(picker)
    fill(room, SLOW)  # 5.1 s
    held = room.arrive(request(fresh(2), candidates=(SLOW,)), 1.0)
    room.dispatch(4.0)
    assert not held.settled
    room.dispatch(5.2)
    assert held.decision is not None
    assert held.decision.reasons[0].prediction.prefill_wait > 0


def test_an_endpoint_is_kept_supplied_with_a_little_work() -> None:
    room = make_room()
    sent = [room.arrive(request(fresh(n), candidates=(FAST,)), 0.0) for n in range(10)]  # 0.33 s each
    assert [held.settled for held in sent] == [True, True] + [False] * 8
    assert 2 * 0.3 > FED_SECONDS > 0.33


def test_short_prompts_overtake_a_long_one_but_not_for_ever() -> None:
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST)
    long = room.arrive(big(1, FAST), 0.0)
    soon = room.arrive(big(2, FAST, blocks=10), 0.1)
    late = room.arrive(big(3, FAST, blocks=10), YIELD * 1.3 + 1.0)
    picker.cancel(ids[FAST], 7.0)
    room.dispatch(7.0)
    assert soon.settled
    assert long.settled
    assert not late.settled  # behind the long one, which fills the endpoint


def test_the_deeper_the_backlog_the_more_a_long_prompt_yields() -> None:
    picker = make_picker()
    room = make_room(picker)
    fill(room, FAST)
    before = room.arrive(big(1, FAST), 0.0)
    for n in range(20):
        room.arrive(big(10 + n, FAST), 0.0)
    after = room.arrive(big(2, FAST), 0.0)
    assert before.turn < after.turn
    assert after.prefill * len(room) > SHORT_BACKLOG


def test_those_held_for_an_endpoint_count_where_a_newcomer_would_go() -> None:
    room = make_room()
    fill(room, FAST)
    alone = room._picker.consider(request(fresh(1)), 0.0, room._reserved)
    for n in range(4):
        room.arrive(big(n, FAST), 0.0)
    crowded = room._picker.consider(request(fresh(1)), 0.0, room._reserved)
    assert alone is not None
    assert crowded is not None
    waits = [next(c for c in found.candidates if c.prediction.address == FAST) for found in (alone, crowded)]
    assert waits[1].prediction.queue - waits[0].prediction.queue == pytest.approx(
        4 * (0.008 + (400 * TOKENS + 1) / 20_000), rel=0.01
    )


def test_nobody_waits_longer_than_the_longest() -> None:
    room = make_room(longest=0.3)
    fill(room, FAST, SLOW, THIRD)
    held = room.arrive(request(fresh(1)), 0.0)
    room.dispatch(0.29)
    assert not held.settled
    room.dispatch(0.3)
    assert held.decision is not None


def test_nobody_is_held_where_that_is_off() -> None:
    room = make_room(longest=0.0)
    assert all(room.arrive(big(n, FAST), 0.0).settled for n in range(20))


class Pair:
    """Two replicas that know of each other, in front of the same endpoints, all of them full."""

    def __init__(self) -> None:
        self.pickers = [make_picker(seed=n, name=f"replica-{n}") for n in (0, 1)]
        self.rooms = [make_room(picker) for picker in self.pickers]
        self.ids = []
        for n, address in enumerate((FAST, SLOW, THIRD)):
            placed = pick(self.pickers[n % 2], big(900 + n, address), 0.0).placed
            self.pickers[(n + 1) % 2].apply(placed, 0.0)
            self.ids.append(placed.id)

    def tell(self) -> None:
        for room, other in (self.rooms, reversed(self.rooms)):
            for event in room.take_news():
                other.hear(event)

    def release(self, address: str, now: float) -> None:
        for picker in self.pickers:
            picker.cancel(self.ids[(FAST, SLOW, THIRD).index(address)], now)


def test_replicas_keep_one_order() -> None:
    pair = Pair()
    first = pair.rooms[0].arrive(big(1, FAST), 0.1)
    second = pair.rooms[1].arrive(big(2, FAST), 0.2)
    pair.tell()
    pair.release(FAST, 0.3)
    pair.rooms[1].dispatch(0.3)
    assert not second.settled  # the other one's is before it
    pair.rooms[0].dispatch(0.3)
    assert first.settled


def test_whoever_another_replica_let_go_is_in_nobodys_way() -> None:
    pair = Pair()
    first = pair.rooms[0].arrive(big(1, FAST), 0.1)
    second = pair.rooms[1].arrive(big(2, FAST), 0.2)
    pair.tell()
    pair.rooms[0].leave(first)
    pair.tell()
    pair.release(FAST, 0.3)
    pair.rooms[1].dispatch(0.3)
    assert second.settled
    assert pair.rooms[1]._seconds == 0.0


def test_those_of_a_replica_that_is_gone_are_in_nobodys_way() -> None:
    pair = Pair()
    pair.rooms[0].arrive(big(1, FAST), 0.1)
    second = pair.rooms[1].arrive(big(2, FAST), 0.2)
    pair.tell()
    pair.release(FAST, 0.3)
    pair.pickers[1].replicas.expire(SILENCE_SECONDS + 0.3)
    pair.rooms[1].dispatch(0.4)
    assert second.settled


def test_those_of_a_replica_that_is_gone_are_forgotten_though_nobody_is_held_here() -> None:
    pair = Pair()
    pair.rooms[0].arrive(big(1, FAST), 0.1)
    pair.tell()
    pair.pickers[1].replicas.expire(SILENCE_SECONDS + 0.3)
    pair.rooms[1].forget_absent()
    assert pair.rooms[1]._seconds == 0.0
    assert pair.rooms[1]._reserved == {}


def test_who_was_told_of_a_request_hears_that_it_left_though_nobody_was_heard_of_since() -> None:
    pair = Pair()
    first = pair.rooms[0].arrive(big(1, FAST), 0.1)
    pair.tell()
    pair.pickers[0].replicas.expire(SILENCE_SECONDS + 0.3)
    assert pair.pickers[0].replicas.nobody_else
    pair.rooms[0].leave(first)
    pair.tell()
    assert pair.rooms[1]._seconds == 0.0


def test_a_replica_that_comes_later_hears_of_those_that_are_looked_at_again() -> None:
    pair = Pair()
    pair.pickers[0].replicas.expire(SILENCE_SECONDS + 0.3)
    held = pair.rooms[0].arrive(big(1, FAST), 0.1)
    assert pair.rooms[0].take_news() == []
    pair.pickers[0].replicas.heard("replica-1", 0.2, 0.2)
    pair.release(THIRD, 0.2)  # not for the one that is held
    pair.rooms[0].dispatch(0.2)
    (told,) = pair.rooms[0].take_news()
    assert isinstance(told, Waits)
    assert told.turn == held.turn
    assert not held.settled


def test_what_a_replica_says_it_still_holds_of_a_model_is_all_that_it_holds_there() -> None:
    pair = Pair()
    held = [pair.rooms[0].arrive(big(n, FAST), 0.1 * n) for n in (1, 2)]
    pair.tell()
    pair.rooms[0].leave(held[0])
    pair.rooms[0].take_news()  # and it is lost
    standing = pair.rooms[0].standing("m")
    assert [event.turn for event in standing] == [held[1].turn]
    assert pair.rooms[0].standing("another") == []
    pair.rooms[1].keep_only(Standing("replica-0", (), "another"))
    assert pair.rooms[1]._seconds == pytest.approx(2 * held[1].prefill)
    pair.rooms[1].keep_only(Standing("replica-0", (standing[0].id,), "m"))
    assert pair.rooms[1]._seconds == pytest.approx(held[1].prefill)


def test_nothing_is_told_where_nobody_hears_and_ones_own_news_means_nothing() -> None:
    room = make_room(make_picker(name="alone"))
    fill(room, FAST)
    room.arrive(big(1, FAST), 0.0)
    assert room.take_news() == []
    pair = Pair()
    held = pair.rooms[0].arrive(big(1, FAST), 0.1)
    news = pair.rooms[0].take_news()
    for event in news:
        pair.rooms[0].hear(event)
    assert len(news) == 1
    assert pair.rooms[0]._seconds == pytest.approx(held.prefill)


def test_when_all_places_are_taken_the_first_in_turn_goes() -> None:
    room = make_room(places=2)
    fill(room, FAST)
    held = [room.arrive(big(n, FAST), float(n)) for n in range(3)]
    assert [h.settled for h in held] == [True, False, False]
    assert len(room) == 2


def test_whoever_leaves_is_not_sent() -> None:
    picker = make_picker()
    room = make_room(picker)
    fill(room, FAST)
    held = room.arrive(big(1, FAST), 0.0)
    room.leave(held)
    room.dispatch(100.0)
    assert (held.settled, len(room), picker.in_flight) == (False, 0, 1)
    sent = room.arrive(big(2, SLOW), 100.0)
    room.leave(sent)  # settled already: its decision is its owner's
    assert sent.decision is not None


def test_wakes_whoever_waits() -> None:
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST)
    woken: list[str] = []
    held = room.arrive(big(1, FAST), 0.0)
    held.wake = lambda: woken.append("held")
    picker.cancel(ids[FAST], 0.1)
    room.dispatch(0.1)
    assert woken == ["held"]


def test_a_request_that_nobody_can_serve_is_settled_without_a_decision() -> None:
    held = make_room().arrive(request(candidates=("10.9.9.9:80",)), 0.0)
    assert (held.settled, held.decision) == (True, None)


def test_requests_for_a_free_version_do_not_wait_behind_those_for_a_full_one() -> None:
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST, SLOW)
    for n in range(MANY):
        room.arrive(request(fresh(n), candidates=ONE_VERSION), 0.0)
    other = room.arrive(request(fresh(999), candidates=(SLOW,)), 0.0)
    assert len(room) == MANY + 1
    picker.cancel(ids[SLOW], 0.1)
    room.dispatch(0.1)
    assert other.settled
    assert len(room) == MANY


ONE_VERSION = (FAST,)
MANY = 70


def test_an_idle_endpoint_is_found_though_many_wait_in_vain_with_the_same_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ext_proc.waiting.PREDICTIONS", 3)
    monkeypatch.setattr("ext_proc.waiting.YIELD", 0.0)
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST, SLOW)
    for n in range(5):
        room.arrive(big(n, FAST), 0.0)
    last = room.arrive(big(9, SLOW), 0.0)
    picker.cancel(ids[SLOW], 0.1)
    for n in range(4):
        room.dispatch(0.1 + n / 50)
    assert last.settled


def test_all_that_many_endpoints_can_take_goes_in_one_dispatch() -> None:
    fleet = [endpoint(f"10.1.0.{n}:80", 20_000) for n in range(200)]
    picker = Picker(PickerSettings(), fleet)
    room = make_room(picker, places=10_000)
    candidates = tuple(e.address for e in fleet)
    for n in range(700):
        room.arrive(request(fresh(n), candidates=candidates), 0.0)  # 0.33 s each, so that two fill one
    assert len(room) == 300
    sent = picker.in_flight
    room.dispatch(0.4)
    assert picker.in_flight - sent >= 200


def test_whoever_is_held_is_counted_once_where_he_would_go_and_nowhere_when_he_is_gone() -> None:
    picker = make_picker()
    room = make_room(picker)
    fill(room, FAST, SLOW, THIRD)
    held = [room.arrive(request(fresh(n)), 0.0) for n in range(8)]
    for now in (0.1, 0.2, 1.0):
        room.dispatch(now)
        waiting = [h for h in held if not h.settled]
        assert sum(room._reserved.values()) == pytest.approx(sum(h.reserved for h in waiting))
    for h in held:
        room.leave(h)
    assert (len(room), dict(room._reserved), room._seconds) == (0, {}, 0.0)


def test_those_not_looked_at_in_one_dispatch_are_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ext_proc.waiting.PREDICTIONS", 8)
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST, SLOW)
    for n in range(10):
        room.arrive(big(n, FAST), 0.0)
    last = room.arrive(request(fresh(999), candidates=(SLOW,)), 0.0)
    picker.cancel(ids[SLOW], 0.1)
    room.dispatch(0.1)
    assert not last.settled
    room.dispatch(0.12)
    assert last.settled


class Play:
    """What a hypothesis test does to a room, one step after the other, in whatever order."""

    def __init__(self) -> None:
        self.picker = make_picker()
        self.room = make_room(self.picker, longest=5.0, places=6)
        self.now = 0.0
        self.all: list[Held] = []
        self.left: list[Held] = []

    def step(self, what: str, number: int) -> None:
        self.now += number / 10
        if what == "arrive":
            self.all.append(self.room.arrive(request(range(number * 100, number * 100 + 90)), self.now))
        elif what == "leave" and self.all:
            held = self.all[number % len(self.all)]
            if not held.settled and held not in self.left:
                self.room.leave(held)
                self.left.append(held)
        elif what == "dispatch":
            self.room.dispatch(self.now)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["arrive", "leave", "dispatch"]), st.integers(0, 30))))
def test_everybody_is_settled_once_or_has_left_and_nobody_is_lost(steps: list[tuple[str, int]]) -> None:
    play = Play()
    for what, number in steps:
        play.step(what, number)
        waiting = [h for h in play.all if not h.settled and h not in play.left]
        assert len(play.room) == len(waiting) <= 6
        assert play.picker.in_flight == sum(h.decision is not None for h in play.all)
    play.room.dispatch(play.now + 5.0)
    assert len(play.room) == 0
    assert all(h.settled != (h in play.left) for h in play.all)


class Guard:
    """Finds it crowded so many times, and refuses or not."""

    def __init__(self, crowded: int = 0, refuses: bool = False, head_start: float = 0.0) -> None:
        self.head_start = head_start
        self.times = crowded
        self.refuses = refuses
        self.ends: list[Decision | None] = []

    def crowded(self, considered: Considered, now: float) -> bool:
        assert considered.candidates
        assert now >= 0
        self.times -= 1
        return self.times >= 0

    def refuse(self, considered: Considered, now: float) -> Refusal | None:
        assert considered.candidates
        assert now >= 0
        return Refusal("saturated", 1, "m", 0) if self.refuses else None

    def displaced(self) -> Refusal:
        return Refusal("displaced", 2, "m", 0)

    def over(self, decision: Decision | None) -> None:
        self.ends.append(decision)


def important(priority: int, number: int, address: str = FAST) -> RoutingRequest:
    return replace(big(number, address), priority=priority)


def test_a_gate_may_refuse_a_request_and_hears_what_became_of_it() -> None:
    room = make_room()
    refusing, passing, leaving = Guard(refuses=True), Guard(), Guard()
    refused = room.arrive(request(), 0.0, refusing)
    assert refused.settled
    assert refused.refused == Refusal("saturated", 1, "m", 0)
    passed = room.arrive(request(), 0.0, passing)
    fill(room, FAST, SLOW, THIRD)
    room.leave(room.arrive(big(1, FAST), 0.0, leaving))
    assert [refusing.ends, passing.ends, leaving.ends] == [[None], [passed.decision], [None]]


def test_a_head_start_goes_before_those_that_arrived_a_little_earlier() -> None:
    picker = make_picker()
    room = make_room(picker)
    ids = fill(room, FAST)
    first = room.arrive(big(1, FAST), 0.0, Guard())
    second = room.arrive(big(2, FAST), 1.0, Guard(head_start=2.0))
    picker.cancel(ids[FAST], 1.1)
    room.dispatch(1.1)
    assert second.settled
    assert not first.settled


def test_the_least_important_and_latest_make_room_as_long_as_it_is_crowded() -> None:
    room = make_room()
    fill(room, FAST, SLOW, THIRD)
    held = {n: room.arrive(important(p, n), 0.1 * n, Guard()) for n, p in enumerate((0, -5, -5, 5, -1))}
    assert not any(each.settled for each in held.values())
    room.arrive(important(3, 9), 1.0, Guard(crowded=3))
    gone = [n for n, each in held.items() if each.refused]
    assert sorted(gone) == [1, 2, 4]
    assert all(held[n].refused == Refusal("displaced", 2, "m", 0) for n in gone)
    room.arrive(important(0, 10), 1.1, Guard(crowded=9))
    assert not held[0].settled  # as important
    assert not held[3].settled
    assert len(room) == 4


def test_nobody_makes_room_who_waits_for_other_endpoints_or_came_without_a_gate() -> None:
    room = make_room()
    fill(room, FAST, SLOW, THIRD)
    elsewhere = room.arrive(important(-5, 1, SLOW), 0.0, Guard())
    without = room.arrive(important(-5, 2, FAST), 0.0)
    room.arrive(important(3, 3, FAST), 1.0, Guard(crowded=9))
    assert not elsewhere.settled
    assert not without.settled
