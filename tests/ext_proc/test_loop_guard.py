"""The guard in this process where it must not end it, and in a child where it must."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

from ext_proc.loop_guard import EXIT_STATUS, Guard, where
from tests.support import until

ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, logging, os, re, signal, sys, time
from ext_proc.loop_guard import guard_loop

logging.basicConfig(format="%(message)s")

def sleeps_for_ever():
    secret = "never said"
    time.sleep(60)

def keeps_the_interpreters_lock():
    import ctypes
    ctypes.PyDLL(None).sleep(60)  # unlike CDLL, PyDLL calls with the lock held

async def main():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(guard_loop(0.4))
        await asyncio.sleep(1)
        print("went on", flush=True)
        {stuck}()

asyncio.run(main())
"""


def stuck_child(stuck: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD.replace("{stuck}", stuck)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_process_whose_loop_is_stuck_ends_with_a_line_that_says_where() -> None:
    ended = stuck_child("sleeps_for_ever")
    assert ended.stdout == "went on\n"
    assert ended.returncode == EXIT_STATUS
    (line,) = ended.stderr.splitlines()
    assert line.startswith("the event loop has not moved for 0.4 s, so this process ends; it is at ")
    assert "sleeps_for_ever" in line
    assert "never said" not in line


def test_so_does_one_whose_interpreter_is_locked() -> None:
    ended = stuck_child("keeps_the_interpreters_lock")
    assert ended.stdout == "went on\n"
    assert ended.returncode == 1
    assert "keeps_the_interpreters_lock" in ended.stderr


async def test_a_loop_that_moves_is_left_alone_and_the_thread_ends_with_it() -> None:
    said: list[str] = []
    guard = Guard(0.08, said.append)
    running = asyncio.ensure_future(guard.run())
    await asyncio.sleep(0.5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert said == []
    await until(lambda: all(thread.name != "loop-guard" for thread in threading.enumerate()))


async def test_says_once_where_a_loop_is_stuck() -> None:
    said: list[str] = []
    heard = threading.Event()

    def end(text: str) -> None:
        said.append(text)
        heard.set()

    guard = Guard(0.08, end)
    running = asyncio.ensure_future(guard.run())
    await asyncio.sleep(0.05)
    heard.wait(10)  # the loop is stuck in this
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (text,) = said
    assert "test_says_once_where_a_loop_is_stuck" in text


def test_a_thread_that_is_gone_has_no_place() -> None:
    assert where(None) == "(no frame)"
