from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ext_proc.events import Began, BlocksRemoved, BlocksStored, Cancelled, Ended, Moved, Placed, RoutingEvent
from tests.ext_proc.small import FAST, SLOW, TOKENS, fresh, make_picker, pick, request

if TYPE_CHECKING:
    from ext_proc.picker import Picker

STRANGER = "9.9.9.9:9"


class Pair:
    """A picker, and a replica of it that follows its news at once."""

    def __init__(self) -> None:
        self.first, self.second = make_picker(seed=1, name="a"), make_picker(seed=2, name="b")

    def place(self, blocks: range, now: float) -> Placed:
        placed = pick(self.first, request(blocks, session=f"s{blocks.start}"), now).placed
        self.tell(placed, now)
        return placed

    def tell(self, event: RoutingEvent, now: float) -> None:
        self.second.apply(event, now)

    def began(self, placed: Placed, at: float) -> None:
        assert self.first.first_token(placed.id, at)
        self.tell(Began(placed.id, at), at)

    def cancelled(self, placed: Placed, at: float) -> None:
        self.first.cancel(placed.id, at)
        self.tell(Cancelled(placed.id, at), at)

    def ended(self, placed: Placed, at: float, **how: float) -> None:
        self.first.finish(placed.id, at, endpoint=placed.endpoints[0], **how)  # type: ignore[arg-type]
        self.tell(Ended(placed.id, at, placed.endpoints[0], **how), at)  # type: ignore[arg-type]

    def go_on(self, seconds: int) -> None:
        """A short request every second, so that the follower hears of the first; it tidies up as often."""
        for second in range(1, seconds + 1):
            other = self.place(fresh(second), float(second))
            self.ended(other, float(second))
            self.second.expire(float(second))

    def agree(self, now: float, blocks: range = range(100)) -> bool:
        """Whether both predict the same of the same request, at every endpoint."""
        ours, theirs = (_predictions(p, blocks, now) for p in (self.first, self.second))
        return len(ours) == 3 and ours == [pytest.approx(theirs_, rel=1e-6) for theirs_ in theirs]


def _predictions(picker: Picker, blocks: range, now: float) -> list[list[float]]:
    """What it predicts at every endpoint, without placing anything."""
    considered = picker.consider(request(blocks), now)
    assert considered is not None
    by_address = sorted(candidate.prediction for candidate in considered.candidates)
    return [list(prediction[1:]) for prediction in by_address]


def test_a_replica_that_follows_the_news_knows_what_the_first_one_does() -> None:
    pair = Pair()
    now = 0.0
    open_: list[Placed] = []
    for n in range(60):
        now += 0.15
        open_.append(pair.place(range((n % 7) * 1000, (n % 7) * 1000 + 20 + n), now))
        assert pair.first.in_flight == pair.second.in_flight == len(open_)
        assert pair.agree(now, range(3000, 3050)), n
        if n % 9 == 8:
            pair.cancelled(open_.pop(), now)
        elif n % 3 == 2:
            oldest = open_.pop(0)
            pair.began(oldest, now + 0.05)
            pair.ended(
                oldest, now + 0.1, output_tokens=40, decode_seconds=0.7, prompt_tokens=1000, cached_tokens=300
            )
            now += 0.1
    assert pair.first.rates(at=1.0) == pair.second.rates(at=1.0) != {}
    for placed in open_:
        pair.ended(placed, now + 1)
    assert pair.first.in_flight == pair.second.in_flight == 0
    assert pair.agree(now + 2)


def test_what_was_placed_elsewhere_counts_as_queue_and_as_cache() -> None:
    pair = Pair()
    before = pick(pair.second, request(fresh(5), candidates=(FAST,)), 0.0)
    pair.second.cancel(before.id, 0.0)
    placed = pair.place(range(100), 0.0)
    assert placed.endpoints[0] == FAST
    after = pick(pair.second, request(range(100), candidates=(FAST,)), 0.0)
    assert after.reasons[0].prediction.prefill_wait > 0.3
    assert after.matched_tokens == 100 * TOKENS


def test_a_session_that_another_replica_placed_is_at_home_there() -> None:
    pair = Pair()
    placed = pair.place(range(100), 0.0)
    assert pair.second._sessions.home("s0") == placed.endpoints[0]


def test_a_failure_that_another_replica_saw_ejects_here_too() -> None:
    pair = Pair()
    for n in range(2):
        placed = pair.place(fresh(n), 0.0)
        assert placed.endpoints[0] == FAST
        pair.tell(Ended(placed.id, 0.1, FAST, failed=True), 0.1)
        pair.first.finish(placed.id, 0.1, endpoint=FAST)
    assert FAST not in pick(pair.second, request(fresh(5)), 0.2).endpoints


def test_news_that_comes_twice_counts_once() -> None:
    pair = Pair()
    placed = pair.place(range(100), 0.0)
    pair.tell(placed, 0.1)
    assert pair.second.in_flight == 1
    for _ in range(2):
        pair.tell(Began(placed.id, 0.4), 0.4)
        pair.tell(Ended(placed.id, 1.0, FAST), 1.0)
    assert pair.second.in_flight == 0
    assert pair.second.traffic(at=0.0)[FAST].in_flight == 0


def test_its_own_placement_that_comes_back_is_no_second_one_even_once_it_is_over() -> None:
    picker = make_picker(name="a")
    decision = pick(picker, request(), 0.0)
    picker.apply(decision.placed, 0.1)
    assert picker.in_flight == 1
    picker.finish(decision.id, 0.5, endpoint=FAST)
    picker.apply(decision.placed, 0.6)
    assert picker.in_flight == 0


def test_ignores_what_it_does_not_know() -> None:
    picker = make_picker(name="b")
    placed = replace(pick(make_picker(name="a"), request(), 0.0).placed, endpoints=(STRANGER, FAST))
    for event in (
        placed,
        Began("made-up", 1.0),
        Ended("made-up", 1.0, FAST, failed=True),
        Cancelled("made-up", 1.0),
        BlocksStored(STRANGER, range(100)),
        BlocksRemoved(STRANGER, range(100)),
        BlocksRemoved(STRANGER, None),
    ):
        picker.apply(event, 1.0)
    assert (picker.in_flight, picker.known_blocks) == (0, 0)
    assert pick(picker, request(), 1.0).endpoints[0] == FAST


def test_an_engines_news_of_its_cache_changes_the_match() -> None:
    picker = make_picker()

    def matched() -> float:
        decision = pick(picker, request(candidates=(SLOW,)), 0.0)
        picker.cancel(decision.id, 0.0)
        return decision.matched_tokens / TOKENS

    picker.apply(BlocksStored(SLOW, range(60)), 0.0)
    assert matched() == 60
    picker.apply(BlocksRemoved(SLOW, range(40, 50)), 0.0)
    assert matched() == 40
    picker.apply(BlocksRemoved(SLOW, range(500, 600)), 0.0)  # it never knew of those
    assert matched() == 40
    picker.apply(BlocksRemoved(SLOW, None), 0.0)
    assert matched() == 0
    assert picker.known_blocks == 0


def test_another_replicas_long_answers_are_not_given_up_while_that_replica_is_heard_of() -> None:
    pair = Pair()
    long = pair.place(fresh(0), 0.0)
    pair.go_on(60)
    assert pair.second.placed_at(long.id) == 0.0
    pair.second.expire(200.0)  # that replica is gone, and nobody will tell
    assert pair.second.placed_at(long.id) is None


def test_a_retry_elsewhere_is_followed() -> None:
    pair = Pair()
    placed = pair.place(fresh(0), 0.0)
    failed, taken = placed.endpoints[:2]
    pair.tell(Moved(placed.id, 0.1, taken, attempts=2), 0.1)
    book = pair.second._endpoints
    assert (book[failed].ledger.in_flight, book[taken].ledger.in_flight) == (0, 1)


def test_a_request_whose_end_was_lost_is_given_up_in_the_end() -> None:
    pair = Pair()
    lost = pair.place(fresh(0), 0.0)
    pair.go_on(200)
    assert pair.second.placed_at(lost.id) is None
    assert pair.second.in_flight == 0
