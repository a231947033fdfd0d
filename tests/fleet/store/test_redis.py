from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fleet.model import Load
from fleet.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _swallowing(error: Exception | None) -> Callable[[str], Awaitable[dict[bytes, bytes]]]:
    """Behaves as redis-py does when a cancellation and the answer arrive together on Python 3.11."""

    async def answer(_key: str) -> dict[bytes, bytes]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        if error is not None:
            raise error
        return {}

    return answer


@pytest.mark.parametrize("error", [None, RedisConnectionError("gone")])
async def test_a_cancellation_that_the_client_swallowed_still_ends_the_caller(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore("unix:///nowhere/redis.sock")
    monkeypatch.setattr(store._client, "hgetall", _swallowing(error))
    caller = asyncio.ensure_future(store.read("m", Load))
    await asyncio.wait([caller])
    assert caller.cancelled()
    await store.close()
