"""What the exchange does when the store loses something, or is away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ext_proc.events import Began
from fleet.errors import StoreError
from fleet.store.memory_streams import MemoryStreams
from fleet.store.redis_streams import RedisStreams
from tests.ext_proc.replication.replicas import Replica, running
from tests.ext_proc.small import fresh, request
from tests.support import running_redis, until

if TYPE_CHECKING:
    from pathlib import Path

    from fleet.store.streams import Ends, Entry


class FlakyStreams(MemoryStreams):
    """Fails to append or read while `away`; an append may be done all the same (`half_done`)."""

    def __init__(self) -> None:
        super().__init__()
        self.away = self.half_done = False

    async def append(self, model: str, sender: str, data: bytes) -> str:
        if self.away and not self.half_done:
            raise StoreError("away")
        id_ = await super().append(model, sender, data)
        if self.away:
            raise StoreError("the answer was lost")
        return id_

    async def read(self, model: str, after: str, wait: float, most: int = 1000) -> list[Entry]:
        if self.away:
            raise StoreError("away")
        return await super().read(model, after, wait, most)


class SlowReader(MemoryStreams):
    """Gives nobody anything to read while `stalled`."""

    stalled = False

    async def read(self, model: str, after: str, wait: float, most: int = 1000) -> list[Entry]:
        found = await super().read(model, after, min(wait, 0.05), most)
        if self.stalled:
            await asyncio.sleep(0.05)
            return []
        return found


class SlowEnds(MemoryStreams):
    """Tells where a stream ends a moment late: others read on meanwhile."""

    async def ends(self, model: str) -> Ends:
        found = await super().ends(model)
        await asyncio.sleep(0.2)
        return found


async def test_who_reads_on_while_the_ends_are_asked_for_has_lost_nothing() -> None:
    streams = SlowEnds()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        for n in range(60):  # three seconds, in which each asks for the ends a few times
            one.place(request(fresh(n)))
            await asyncio.sleep(0.05)
        await until(lambda: two.picker.in_flight == 60)
        assert two.count("kvpilot_picker_resyncs_total", reason="backwards") == 0


async def test_what_could_not_be_told_is_told_later_in_order() -> None:
    streams = FlakyStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        streams.away = True
        first, second = one.place(request(fresh(1))), one.place(request(fresh(2)))
        one.finish(first)
        await asyncio.sleep(0.1)
        assert two.picker.in_flight == 0
        streams.away = False
        await until(lambda: two.picker.placed_at(second.id) is not None)
        await until(lambda: two.picker.in_flight == 1)


async def test_an_append_whose_answer_was_lost_does_not_count_twice() -> None:
    streams = FlakyStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        streams.away = streams.half_done = True
        one.place(request(fresh(1)))
        await asyncio.sleep(0.6)  # tried twice by now
        assert (await streams.ends("m")).length > 3
        streams.away = False
        await until(lambda: two.picker.in_flight == 1)
        ledger = sum(state.ledger.in_flight for state in two.picker._endpoints.values())
        assert ledger == 1


async def test_whoever_had_to_drop_news_says_what_is_outstanding() -> None:
    streams = FlakyStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        over, stays = one.place(request(fresh(1))), one.place(request(fresh(2)))
        await until(lambda: two.picker.in_flight == 2)
        streams.away = True
        one.link.tell(Began("under way", 0.0))
        await until(lambda: one.link._pending is not None)
        one.link.outbox._most = 5
        one.finish(over)
        for n in range(10):  # pushes the end out
            one.link.tell(Began(str(n), 0.0))
        assert one.count("kvpilot_picker_events_dropped_total", reason="backlog") == 6
        streams.away = False
        await until(lambda: two.picker.in_flight == 1)
        assert two.picker.placed_at(stays.id) is not None


async def test_a_stream_that_lost_its_end_is_read_again_and_the_others_are_asked() -> None:
    streams = MemoryStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        placed = one.place(request(fresh(1)))
        await until(lambda: two.picker.in_flight == 1)
        streams.lose("m")
        streams.skew = -3600.0  # what comes now has lower ids than what was read
        one.finish(placed)
        later = one.place(request(fresh(2)))
        await until(lambda: two.picker.placed_at(later.id) is not None)
        await until(lambda: two.picker.in_flight == 1)
        assert two.count("kvpilot_picker_resyncs_total", reason="backwards") >= 1


async def test_whoever_was_too_slow_asks_the_others_what_is_outstanding() -> None:
    streams = SlowReader(most=5)
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        over = one.place(request(fresh(1)))
        await until(lambda: two.picker.in_flight == 1)
        streams.stalled = True
        one.finish(over)
        kept = one.place(request(fresh(2)))
        for _ in range(10):
            one.link.tell(Began("?", 0.0))
            await asyncio.sleep(0.03)
        streams.stalled = False
        await until(lambda: two.picker.placed_at(kept.id) is not None)
        await until(lambda: two.picker.in_flight == 1)
        assert two.count("kvpilot_picker_resyncs_total", reason="lost") >= 1


async def test_entries_that_make_no_sense_are_passed_over_and_counted() -> None:
    streams = MemoryStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one, two):
        await streams.append("m", "somebody", b"\xff\xff")
        one.place(request(fresh(1)))
        await until(lambda: two.picker.in_flight == 1)
        assert two.count("kvpilot_picker_events_dropped_total", reason="unreadable") == 1


async def test_redis_stopped_and_started_between_leaves_nothing_counted_twice(tmp_path: Path) -> None:
    directories = [tmp_path / "redis"]
    directories[0].mkdir()
    async with contextlib.AsyncExitStack() as first:
        url = await first.enter_async_context(running_redis(directories[0]))
        streams = [RedisStreams(url) for _ in range(2)]
        one, two = (Replica(name, s) for name, s in zip(("one", "two"), streams, strict=True))
        async with running(one, two):
            before = [one.place(request(fresh(n))) for n in range(10)]
            await until(lambda: two.picker.in_flight == 10)
            await first.aclose()
            during = [two.place(request(fresh(n))) for n in range(10, 20)]
            for placed in before:
                one.finish(placed)
            assert (one.picker.in_flight, two.picker.in_flight) == (0, 20)
            await asyncio.sleep(0.3)
            async with running_redis(directories[0]):
                await until(lambda: (one.picker.in_flight, two.picker.in_flight) == (10, 10))
                for placed in during:
                    two.finish(placed)
                await until(lambda: (one.picker.in_flight, two.picker.in_flight) == (0, 0))
                ledgers = [s.ledger for r in (one, two) for s in r.picker._endpoints.values()]
                assert all(ledger.owed == 0 and ledger.kv_tokens == 0 for ledger in ledgers)
    for opened in streams:
        await opened.close()
