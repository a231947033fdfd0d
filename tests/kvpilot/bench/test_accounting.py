from __future__ import annotations

import asyncio
import os
import time

from kvpilot.bench.accounting import cpu_seconds, resident_mb


async def test_counts_the_work_of_a_process() -> None:
    before = await asyncio.to_thread(cpu_seconds, os.getpid())
    used = time.process_time()
    while time.process_time() < used + 0.1:
        sum(range(1000))
    after = await asyncio.to_thread(cpu_seconds, os.getpid())
    assert after - before >= 0.08  # a tick is 0.01 s


async def test_sees_the_memory_of_a_process() -> None:
    before = await asyncio.to_thread(resident_mb, os.getpid())
    held = bytearray(os.urandom(1 << 20)) * 64
    assert await asyncio.to_thread(resident_mb, os.getpid()) > before + 50
    assert len(held) == 64 << 20
