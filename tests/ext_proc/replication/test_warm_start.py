from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.store.memory_streams import MemoryStreams
from tests.ext_proc.replication.replicas import Replica, running
from tests.ext_proc.small import FAST, SLOW, THIRD, fresh, request
from tests.support import until

if TYPE_CHECKING:
    from ext_proc.replication.warm_start import WarmStart


def warm(replica: Replica) -> WarmStart:
    return replica.exchange.warm_starts["m"]


def beliefs(replica: Replica) -> dict[str, set[bytes]]:
    dumps = {address: replica.picker.memory.dump_blocks(address) for address in (FAST, SLOW, THIRD)}
    return {a: {d[i : i + 8] for i in range(0, len(d), 8)} for a, d in dumps.items()}


async def test_a_new_replica_knows_what_the_copy_and_the_tail_say() -> None:
    streams = MemoryStreams()
    one = Replica("one", streams)
    async with running(one):
        for n in range(5):
            one.finish(one.place(request(fresh(n), session=f"s{n}")))
        running_on = one.place(request(fresh(6), session="r"))
        one.picker.first_token(running_on.id, one.now())
        await until(lambda: not len(one.link.outbox))
        await warm(one).save()
        one.finish(one.place(request(fresh(7), session="after")))  # in the tail alone
        await until(lambda: not len(one.link.outbox) and one.link._pending is None)
        two = Replica("two", streams, skew=5.0)
        await two.link.beat()
        two.link.cursor = "0-0"
        assert await warm(two).load()
        assert beliefs(two) == beliefs(one)
        assert two.picker.in_flight == 1
        placed_at = two.picker.placed_at(running_on.id)
        assert placed_at is not None
        assert abs(placed_at - 5.0 - running_on.at) < 0.1
        assert not two.picker._in_flight.awaits_first_token(running_on.id)
        for session in ("s0", "s4", "after"):
            assert two.picker._sessions.home(session) == one.picker._sessions.home(session)


async def test_a_copy_made_with_another_key_is_not_used() -> None:
    streams = MemoryStreams()
    one, other = Replica("one", streams), Replica("other", streams, key=b"x" * 16)
    async with running(one):
        one.place(request(fresh(1)))
        await warm(one).save()
    await other.link.ask_the_time()
    assert not await warm(other).load()
    assert other.picker.known_blocks == 0


async def test_what_is_no_copy_is_not_used() -> None:
    streams = MemoryStreams()
    await streams.save("m", "head", "head", b"\xff", 10)
    assert not await warm(Replica("one", streams)).load()


async def test_a_copy_with_a_chunk_missing_is_used_for_the_rest() -> None:
    streams = MemoryStreams()
    one, two = Replica("one", streams), Replica("two", streams)
    async with running(one):
        placed = one.place(request(fresh(1)))
        await warm(one).save()
    streams._copies["m", one.link.cursor][0].pop(f"{placed.endpoints[0]}/0")
    await two.link.ask_the_time()
    assert await warm(two).load()
    assert two.picker.in_flight == 1
