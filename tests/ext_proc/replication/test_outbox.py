from __future__ import annotations

import pytest

from ext_proc.events import Began, Ended
from ext_proc.replication.outbox import ALONE_WAIT_SECONDS, BATCH_EVENTS_MAX, NEWS_WAIT_SECONDS, Outbox
from tests.ext_proc.small import make_picker, pick, request


def test_a_placement_goes_at_once_and_takes_what_waits_along() -> None:
    outbox = Outbox()
    assert outbox.wait(0.0, alone=False) is None
    assert not outbox.add(Began("a", 1.0), 1.0)
    assert outbox.wait(1.0, alone=False) == pytest.approx(NEWS_WAIT_SECONDS)
    placed = pick(make_picker(), request(), 1.0).placed
    assert outbox.add(placed, 1.001)
    assert outbox.wait(1.001, alone=False) == 0.0
    assert outbox.take() == [Began("a", 1.0), placed]
    assert outbox.wait(1.002, alone=False) is None


def test_whoever_is_alone_may_gather_placements_too() -> None:
    outbox = Outbox()
    outbox.add(pick(make_picker(), request(), 1.0).placed, 1.0)
    assert outbox.wait(1.0, alone=True) == pytest.approx(ALONE_WAIT_SECONDS)
    assert outbox.wait(2.0, alone=True) == 0.0


def test_other_news_waits_no_longer_than_its_oldest_may() -> None:
    outbox = Outbox()
    outbox.add(Began("a", 1.0), 1.0)
    outbox.add(Began("b", 1.01), 1.01)
    assert outbox.wait(1.02, alone=False) == 0.0


def test_a_full_backlog_drops_the_oldest_and_remembers_that_it_did() -> None:
    outbox = Outbox(most=3)
    for n in range(5):
        outbox.add(Ended(str(n), float(n)), float(n))
    assert (len(outbox), outbox.dropped, outbox.lossy) == (3, 2, True)
    assert [event.id for event in outbox.take() if isinstance(event, Ended)] == ["2", "3", "4"]


def test_batches_are_bounded_and_keep_the_order() -> None:
    outbox = Outbox()
    for n in range(BATCH_EVENTS_MAX + 10):
        outbox.add(Began(str(n), 0.0), 0.0)
    first, second = outbox.take(), outbox.take()
    assert len(first) == BATCH_EVENTS_MAX
    assert [e.id for e in [*first, *second] if isinstance(e, Began)] == [
        str(n) for n in range(BATCH_EVENTS_MAX + 10)
    ]
