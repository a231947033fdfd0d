from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ext_proc import completions
from ext_proc.completions import LogEntry
from ext_proc.events import Waits
from fleet.errors import StartError, StoreError
from fleet.store.memory_streams import MemoryStreams
from tests.ext_proc.replication.replicas import ELSEWHERE, TWO_MODELS, Replica, running
from tests.ext_proc.small import FAST, fresh, request
from tests.support import made_streams, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fleet.store.streams import Streams


@pytest.fixture(params=["memory", "redis"])
async def streams(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Streams]:
    async with made_streams(request.param, tmp_path) as made:
        yield made


async def test_a_replica_follows_what_another_places_begins_and_ends(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        placed = one.place(request(fresh(1), session="s"))
        await until(lambda: two.picker.in_flight == 1)
        assert two.picker.known_blocks == one.picker.known_blocks == 100
        assert two.picker._sessions.home("s") == placed.endpoints[0]
        one.picker.first_token(placed.id, one.now())
        await until(lambda: not two.picker._in_flight.awaits_first_token(placed.id))
        one.finish(placed)
        await until(lambda: two.picker.in_flight == 0)
    assert two.count("kvpilot_picker_events_total", direction="heard", kind="ended") == 1
    assert one.count("kvpilot_picker_events_total", direction="sent", kind="placed") >= 1
    assert two.count("kvpilot_picker_event_lag_seconds_count") == 1


async def test_the_owner_learns_of_an_end_that_another_replicas_log_told_and_only_once(
    streams: Streams,
) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        placed = one.place(request(fresh(1)))
        await until(lambda: two.picker.in_flight == 1)
        entry = LogEntry(placed.id, over=True, first_token=0.01, endpoint=placed.endpoints[0], ok=True)
        assert completions.apply(entry, two.picker, two.now())
        await until(lambda: one.picker.in_flight == 0)
        assert not completions.apply(entry, one.picker, one.now())
    observed = [r.picker._endpoints[placed.endpoints[0]].rates.observations for r in (one, two)]
    assert observed[0] == observed[1] <= 1


async def test_clocks_that_differ_by_a_second_do_no_harm(streams: Streams) -> None:
    one, two = Replica("one", streams, skew=1.0), Replica("two", streams, skew=-1.0)
    async with running(one, two):
        for n in range(20):
            one.place(request(fresh(n)))
            two.place(request(fresh(n + 50)))
        await until(lambda: one.picker.in_flight == two.picker.in_flight == 40)
        lags = [r.count("kvpilot_picker_event_lag_seconds_sum") / 20 for r in (one, two)]
        assert all(lag < 0.5 for lag in lags)
        for id_ in one.picker._in_flight._placements:
            ours, theirs = one.picker.placed_at(id_), two.picker.placed_at(id_)
            assert ours is not None
            assert theirs is not None
            assert ours - 1.0 == pytest.approx(theirs + 1.0, abs=0.05)


async def test_a_log_entry_that_comes_before_its_placement_waits_for_it(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        await until(lambda: two.exchange.parking.open)
        placed = one.place(request(fresh(1)))  # and nothing is published before the next turn of the loop
        entry = LogEntry(placed.id, over=True, endpoint=FAST, ok=True)
        assert two.exchange.parking.park(entry, two.now())
        await until(lambda: one.picker.in_flight == 0 and len(two.exchange.parking) == 0)
        assert two.exchange.parking.applied == 1


async def test_the_others_hear_whom_a_replica_holds_and_whom_it_lets_go(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        first, other = one.place(request(fresh(1))), two.place(request(fresh(2)))
        await until(lambda: one.picker.replicas.present("two") and two.picker.replicas.present("one"))
        long = [one.place(request(range(n * 10**6, n * 10**6 + 9000))) for n in range(1, 7)]
        held = one.room.arrive(request(fresh(3)), one.now())
        assert not held.settled
        await until(lambda: len(two.room._others) == 1)
        one.room.leave(held)
        await until(lambda: not two.room._others)
        for placed in (first, *long):
            one.finish(placed)
        two.finish(other)
        await until(lambda: one.picker.in_flight == two.picker.in_flight == 0)


async def test_a_newcomer_hears_what_is_outstanding(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one):
        placed = one.place(request(fresh(1)))
        async with running(two):
            await until(lambda: two.picker.in_flight == 1)
            one.finish(placed)
            await until(lambda: two.picker.in_flight == 0)


async def test_whoever_missed_news_hears_whom_the_others_hold_still(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        for n in range(1, 7):
            one.place(request(range(n * 10**6, n * 10**6 + 9000)))
        two.place(request(fresh(2)))
        await until(lambda: one.picker.replicas.present("two") and two.picker.replicas.present("one"))
        stays, leaves = (one.room.arrive(request(fresh(n)), one.now()) for n in (3, 4))
        await until(lambda: len(two.room._others) == 2)
        one.room.leave(leaves)
        one.room.take_news()  # nobody hears of it
        two.link.resync("lost")
        await until(lambda: len(two.room._others) == 1)
        assert next(iter(two.room._others.values())).turn[1] == stays.turn[1]
        one.room.leave(stays)
        await until(lambda: not two.room._others)


async def test_whom_a_dead_replica_held_is_forgotten_though_nobody_is_held_here() -> None:
    one = Replica("one", MemoryStreams())
    one.room.hear(Waits("dead/1", "dead", (one.now(), 1), FAST, 0.5, 0.5))
    one.exchange.tick()
    assert not one.room._others


async def test_what_is_outstanding_of_one_model_says_nothing_of_another(streams: Streams) -> None:
    one, two = (Replica(name, streams, fleet=TWO_MODELS) for name in ("one", "two"))
    async with running(one, two):
        here = one.place(request(fresh(1), candidates=(FAST,)))
        there = one.place(request(fresh(2), candidates=(ELSEWHERE.address,)))
        await until(lambda: two.picker.in_flight == 2)
        answers = {"direction": "heard", "kind": "standing"}
        before = two.count("kvpilot_picker_events_total", **answers)
        for link in two.links:
            link.resync("lost")
        await until(lambda: two.count("kvpilot_picker_events_total", **answers) >= before + 2)
        assert two.picker.placed_at(here.id) is not None
        assert two.picker.placed_at(there.id) is not None
        assert two.picker.known_blocks == one.picker.known_blocks == 200


async def test_one_with_another_key_refuses_to_start_and_names_what_to_set(streams: Streams) -> None:
    one, two = Replica("one", streams), Replica("two", streams, key=b"x" * 16)
    async with running(one):
        with pytest.raises(StartError, match=r"picker\.key_file"):
            await two.exchange.run()
        assert not two.exchange.ready.is_set()


async def test_one_that_crashed_with_another_key_is_in_nobodys_way(streams: Streams) -> None:
    dead, two = Replica("dead", streams, key=b"x" * 16), Replica("two", streams)
    await dead.link.beat()
    async with running(two):
        assert two.link.others == ()


class LateStreams(MemoryStreams):
    """Cannot be reached by one who looks `too_early`."""

    too_early = True

    async def server_time(self) -> float:
        if self.too_early:
            raise StoreError("not yet there")
        return await super().server_time()


def late_to(shared: MemoryStreams) -> LateStreams:
    """The same streams, seen by one from whom the store is away until it is no longer `too_early`."""
    late = LateStreams()
    held = vars(shared)
    vars(late).update(held)
    return late


async def test_one_with_another_key_that_started_without_the_store_ends_when_it_is_there() -> None:
    shared = MemoryStreams()
    late = late_to(shared)
    one, two = Replica("one", shared), Replica("two", late, key=b"x" * 16)
    async with running(one):
        ending = asyncio.ensure_future(two.exchange.run())
        await two.exchange.ready.wait()
        late.too_early = False
        await until(lambda: two.link.attended)
        await one.link.beat()
        two.place(request(fresh(1)))
        one.place(request(fresh(2)))
        with pytest.raises(StartError, match=r"picker\.key_file"):
            await ending
        assert one.picker.known_blocks == two.picker.known_blocks == 100  # each its own


class HangingStreams(MemoryStreams):
    """Never says that it heard of a departure."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving: list[str] = []
        self.given_up: list[tuple[str, int]] = []

    async def leave(self, model: str, names: list[str]) -> None:
        assert names
        self.leaving.append(model)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.append((model, len(self.leaving)))


async def test_stopping_says_so_on_all_models_together_and_gives_up_soon() -> None:
    streams = HangingStreams()
    one = Replica("one", streams, fleet=TWO_MODELS)
    task = asyncio.ensure_future(one.exchange.run())
    await one.exchange.ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(streams.given_up) == [("m", 2), ("n", 2)]


async def test_without_others_no_log_entry_is_kept(streams: Streams) -> None:
    one = Replica("one", streams)
    async with running(one):
        await asyncio.sleep(0.05)
        assert not one.exchange.parking.park(LogEntry("forged", over=True), one.now())
