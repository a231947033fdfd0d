from __future__ import annotations

from dataclasses import replace

from ext_proc.completions import LogEntry
from ext_proc.events import Asked, Began, Cancelled, Ended, Left, Placed, Standing, Waits
from ext_proc.replication.hearing import HELD_NEWS_SECONDS, Hearing
from ext_proc.replication.parking import Parking
from ext_proc.replication.wire import Batch
from ext_proc.waiting import WaitingRoom
from tests.ext_proc.small import FAST, fresh, make_picker, pick, request


class Ear:
    """A picker that hears what another one placed."""

    def __init__(self) -> None:
        self.other, self.picker = make_picker(1, "other"), make_picker(2, "me")
        self.room = WaitingRoom(self.picker, 60.0, 10)
        self.parking = Parking()
        self.parking.open = True
        self.hearing = Hearing("m", self.picker, self.room, self.parking)

    def place(self, n: int, now: float) -> Placed:
        return pick(self.other, request(fresh(n)), now).placed


def test_a_batch_that_is_heard_again_changes_nothing() -> None:
    ear = Ear()
    placed = ear.place(1, 1.0)
    first = Batch("other", 1, (placed,))
    second = Batch("other", 2, (Ended(placed.id, 2.0, placed.endpoints[0]),))
    assert ear.hearing.hear(first, 1.01).lags == (1.01 - 1.0,)
    assert ear.hearing.hear(first, 1.02).again
    ear.hearing.hear(second, 2.0)
    assert ear.hearing.hear(first, 2.1).again
    assert ear.hearing.hear(second, 2.1).again
    assert ear.picker.in_flight == 0


def test_a_number_left_out_is_news_that_was_lost() -> None:
    ear = Ear()
    assert not ear.hearing.hear(Batch("other", 7, ()), 1.0).lost  # whoever comes later begins anywhere
    assert not ear.hearing.hear(Batch("other", 8, ()), 1.0).lost
    assert ear.hearing.hear(Batch("other", 10, ()), 1.0).lost
    assert not ear.hearing.hear(Batch("third", 1, ()), 1.0).lost


def test_what_is_over_stays_over_though_its_placement_is_told_again() -> None:
    ear = Ear()
    placed, mine = ear.place(1, 1.0), ear.place(2, 1.0)
    ear.hearing.hear(Batch("other", 1, (placed, mine)), 1.0)
    ear.hearing.hear(Batch("third", 1, (Ended(placed.id, 2.0, placed.endpoints[0]),)), 2.0)
    ear.picker.cancel(mine.id, 2.0)
    ear.hearing.told(Cancelled(mine.id, 2.0))
    again = tuple(replace(event, again=True) for event in (placed, mine))
    assert ear.hearing.hear(Batch("other", 2, again), 2.1).lags == ()
    assert ear.picker.in_flight == 0


def test_a_replica_that_says_what_is_outstanding_of_its_own_ends_all_else_of_it() -> None:
    ear = Ear()
    first, second = ear.place(1, 1.0), ear.place(2, 1.0)
    own = pick(ear.picker, request(fresh(3)), 1.0)
    ear.hearing.hear(Batch("other", 1, (first, second)), 1.0)
    ear.hearing.hear(Batch("other", 2, (Standing("other", (second.id,)),)), 2.0)
    assert ear.picker.placed_at(first.id) is None
    assert ear.picker.placed_at(second.id) == 1.0
    assert ear.picker.placed_at(own.id) == 1.0
    of_another = Hearing("another", ear.picker, ear.room, ear.parking)
    of_another.hear(Batch("other", 1, (Standing("other", ()),)), 3.0)
    assert ear.picker.placed_at(second.id) == 1.0


def test_log_entries_that_came_too_early_are_applied_with_the_placement() -> None:
    ear = Ear()
    placed = ear.place(1, 1.0)
    ear.parking.park(LogEntry(placed.id, over=True, endpoint=placed.endpoints[0], ok=True), 1.0)
    told: list[object] = []
    ear.picker.publish = lambda _, event: told.append(event)
    ear.hearing.hear(Batch("other", 1, (placed,)), 1.1)
    assert ear.picker.in_flight == 0
    assert [type(event) for event in told] == [Ended]  # for the others: the log came to us alone


def test_news_of_the_log_is_told_once_and_what_was_heard_is_not_told_on() -> None:
    ear = Ear()
    told: list[object] = []
    ear.picker.publish = lambda _, event: told.append(event)
    placed = ear.place(1, 1.0)
    ear.hearing.hear(Batch("other", 1, (placed, Began(placed.id, 1.5))), 1.6)
    assert told == []
    assert ear.picker.first_token(placed.id, 1.7)
    assert told == []
    assert ear.picker.finish(placed.id, 2.0, endpoint=placed.endpoints[0])
    assert not ear.picker.finish(placed.id, 2.0, endpoint=placed.endpoints[0])
    assert len(told) == 1


def test_a_running_request_is_told_of_when_it_moves_and_now_and_then() -> None:
    picker = make_picker(1, "me")
    placed = pick(picker, request(fresh(1)), 0.0).placed
    told: list[object] = []
    picker.publish = lambda _, event: told.append(event)
    for n in range(20):
        picker.running(placed.id, 0.5 * n, endpoint=placed.endpoints[0])
    assert len(told) == 1
    picker.running(placed.id, 10.0, endpoint=placed.endpoints[1], attempts=2)
    assert len(told) == 2


def test_whom_another_holds_is_heard_of_unless_that_is_long_ago() -> None:
    ear = Ear()
    now = 100.0
    waits = Waits("other/1", "other", (now, 1), FAST, 0.5, 0.5)
    old = Waits("other/0", "other", (now - HELD_NEWS_SECONDS - 1, 0), FAST, 0.5, 0.5)
    ear.hearing.hear(Batch("other", 1, (old, waits)), now)
    assert list(ear.room._others) == ["other/1"]
    ear.hearing.hear(Batch("other", 2, (Left("other/1"),)), now)
    assert not ear.room._others


def test_a_question_is_passed_on() -> None:
    assert Ear().hearing.hear(Batch("other", 1, (Asked("other"),)), 1.0).asked
