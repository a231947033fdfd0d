"""The streams keep one contract: each test runs against memory and a real Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fleet.errors import StoreError
from fleet.store.redis_streams import RedisStreams
from fleet.store.streams import START, order_of, without
from tests.support import made_streams, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fleet.store.streams import Streams


@pytest.fixture(params=["memory", "redis"])
async def streams(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Streams]:
    async with made_streams(request.param, tmp_path) as made:
        yield made


async def test_entries_are_read_in_order_from_where_one_was(streams: Streams) -> None:
    ids = [await streams.append("m", f"r{n}", bytes([n])) for n in range(5)]
    assert sorted(ids, key=order_of) == ids
    every = await streams.read("m", START, 0)
    assert [(e.sender, e.data) for e in every] == [(f"r{n}", bytes([n])) for n in range(5)]
    assert [e.id for e in await streams.read("m", ids[2], 0)] == ids[3:]
    assert [e.id for e in await streams.read("m", START, 0, most=2)] == ids[:2]
    assert await streams.read("m", ids[-1], 0) == []
    assert await streams.read("other", START, 0) == []


async def test_a_reader_waits_for_the_next_entry_and_not_for_ever(streams: Streams) -> None:
    last = await streams.append("m", "r", b"1")
    assert await streams.read("m", last, 0.05) == []
    reading = asyncio.ensure_future(streams.read("m", last, 5))
    await asyncio.sleep(0.05)
    id_ = await streams.append("m", "r", b"2")
    assert [e.id for e in await reading] == [id_]


async def test_says_where_a_stream_begins_and_ends(streams: Streams) -> None:
    assert await streams.ends("m") == (START, START, 0)
    first = await streams.append("m", "r", b"1")
    last = await streams.append("m", "r", b"2")
    assert await streams.ends("m") == (first, last, 2)


async def test_has_a_clock(streams: Streams) -> None:
    assert abs(await streams.server_time() - time.time()) < 1


async def test_says_who_is_there(streams: Streams) -> None:
    await streams.attend("m", "a", b"1")
    assert await streams.attend("m", "b", b"2") == {"a": b"1", "b": b"2"}
    await streams.leave("m", ["a"])
    said = await streams.attend("m", "b", b"3")
    assert said == {"b": b"3"}
    assert without("b", said) == {}


async def test_a_lease_has_one_owner_who_may_renew_it(streams: Streams) -> None:
    assert await streams.lease("m", "copy", "a", 10)
    assert not await streams.lease("m", "copy", "b", 10)
    assert await streams.lease("m", "copy", "a", 0.05)
    assert await streams.lease("other", "copy", "b", 10)
    await asyncio.sleep(0.1)
    assert await streams.lease("m", "copy", "b", 10)


async def test_keeps_chunks_of_a_copy_for_a_while(streams: Streams) -> None:
    await streams.save("m", "one", "head", b"h", 10)
    await streams.save("m", "one", "tail", b"t", 10)
    assert await streams.load("m", "one", ["tail", "none", "head"]) == [b"t", None, b"h"]
    await streams.save("m", "one", "head", b"h", 0.05)
    await asyncio.sleep(0.1)
    assert await streams.load("m", "one", ["head"]) == [None]


async def test_entries_of_somebody_else_are_passed_over(tmp_path: Path) -> None:
    async with running_redis(tmp_path) as url:
        made = RedisStreams(url)
        await made._client.xadd("kvpilot:{m}:events", {"what": "ever"})
        (entry,) = await made.read("m", START, 0)
        assert (entry.sender, entry.data) == ("", b"")
        await made.close()


async def test_says_so_in_one_line_when_redis_is_away(tmp_path: Path) -> None:
    made = RedisStreams(f"unix://{tmp_path}/nobody.sock")
    for call in (
        made.append("m", "r", b""),
        made.read("m", START, 0.1),
        made.ends("m"),
        made.server_time(),
        made.attend("m", "r", b""),
        made.leave("m", ["r"]),
        made.lease("m", "copy", "r", 1),
        made.save("m", "c", "head", b"", 1),
        made.load("m", "c", ["head"]),
    ):
        with pytest.raises(StoreError, match=r"nobody\.sock") as caught:
            await call
        assert "\n" not in str(caught.value)
    await made.close()


async def test_goes_on_with_a_redis_that_was_restarted(tmp_path: Path) -> None:
    async with running_redis(tmp_path) as url:
        made = RedisStreams(url)
        await made.append("m", "r", b"1")
    with pytest.raises(StoreError):
        await made.append("m", "r", b"2")
    async with running_redis(tmp_path):
        await made.append("m", "r", b"3")
        assert [e.data for e in await made.read("m", START, 0)] == [b"3"]
        await made.close()
