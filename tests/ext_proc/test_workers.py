from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet import settings_file
from fleet.store.redis_streams import RedisStreams
from tests.support import one_pool_settings, running_redis, until

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(90)


def write(path: Path, redis_url: str, **picker: object) -> None:
    settings = one_pool_settings(
        redis_url=redis_url, picker_address=f"unix:{path}/picker.sock", picker={"workers": 2, **picker}
    )
    (path / "kvpilot.yaml").write_text(settings_file.dump(settings))


@contextlib.asynccontextmanager
async def picker(path: Path, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ext_proc",
        "-c",
        str(path / "kvpilot.yaml"),
        *arguments,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def replicas(url: str) -> int:
    streams = RedisStreams(url)
    said = await streams.attend("m", "test", b"")
    await streams.leave("m", ["test"])
    await streams.close()
    return len(said) - 1


async def test_workers_are_replicas_restarted_when_they_die_and_ended_together(tmp_path: Path) -> None:
    async with running_redis(tmp_path) as url:
        write(tmp_path, url)
        async with picker(tmp_path) as process:
            sockets = [tmp_path / "picker.sock", tmp_path / "picker.sock.1"]
            await until(lambda: all(socket.exists() for socket in sockets), seconds=30)
            await until(lambda: len(children(process.pid)) == 2)
            assert await replicas(url) == 2  # with one key, or the second had not started
            victim = children(process.pid)[0]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: victim not in (left := children(process.pid)) and len(left) == 2, seconds=30)
            workers = children(process.pid)
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 10) == 0
            assert not any(alive(pid) for pid in workers)


async def test_workers_end_when_the_first_process_is_killed(tmp_path: Path) -> None:
    async with running_redis(tmp_path) as url:
        write(tmp_path, url)
        async with picker(tmp_path, "--workers", "2") as process:
            await until((tmp_path / "picker.sock.1").exists, seconds=30)
            workers = children(process.pid)
            assert len(workers) == 2
            process.kill()
            await process.wait()
            await until(lambda: not any(alive(pid) for pid in workers))


async def test_a_worker_that_cannot_start_ends_all_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / ".", f"unix://{tmp_path}/none.sock")
    text = (tmp_path / "kvpilot.yaml").read_text()
    (tmp_path / "kvpilot.yaml").write_text(
        text.replace(f"unix:{tmp_path}/picker", f"unix:{tmp_path}/absent/p")
    )
    async with picker(tmp_path) as process:
        _, said = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 2
    assert b"cannot listen" in said
    assert b"cannot start" in said


async def test_a_second_picker_without_the_same_key_refuses_to_start(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    async with running_redis(tmp_path) as url:
        write(first, url, workers=1)
        write(second, url, workers=1)
        async with picker(first):
            await until((first / "picker.sock").exists, seconds=30)
            async with picker(second) as process:
                _, said = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 2
    assert b"picker.key_file" in said
    assert b"Traceback" not in said


async def test_the_flag_of_a_worker_is_not_for_people(tmp_path: Path) -> None:
    write(tmp_path, "redis://127.0.0.1:1/0")
    async with picker(tmp_path, "--worker", "1") as process:
        _, said = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 2
    assert b"--workers" in said
