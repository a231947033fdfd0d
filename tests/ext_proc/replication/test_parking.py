from __future__ import annotations

from ext_proc.completions import LogEntry
from ext_proc.replication.parking import PARKED_MAX, PARKED_SECONDS, Parking


def parking() -> Parking:
    made = Parking()
    made.open = True
    return made


def test_gives_back_what_was_said_of_a_pick_in_order_once() -> None:
    made = parking()
    first, last = LogEntry("a", over=False, first_token=0.1), LogEntry("a", over=True)
    assert made.park(first, 0.0)
    assert made.park(LogEntry("b", over=True), 0.0)
    assert made.park(last, 0.5)
    assert made.take("a") == [first, last]
    assert made.take("a") == []
    assert (len(made), made.applied) == (1, 2)


def test_drops_what_nobody_placed() -> None:
    made = parking()
    made.park(LogEntry("a", over=False), 0.0)
    made.park(LogEntry("b", over=False), 1.0)
    made.park(LogEntry("a", over=True), 1.5)  # does not prolong its stay
    made.expire(PARKED_SECONDS)
    assert (len(made), made.dropped) == (1, 2)
    assert made.take("a") == []


def test_takes_nothing_while_closed_nor_more_than_it_has_room_for() -> None:
    assert not Parking().park(LogEntry("a", over=True), 0.0)
    made = parking()
    taken = [made.park(LogEntry(str(n), over=True), 0.0) for n in range(PARKED_MAX + 5)]
    assert sum(taken) == len(made) == PARKED_MAX
