"""How long a new replica takes until it knows what the others know: a real Redis, a full index.

    .venv/bin/python bench/warm_start.py --blocks 1000000 --holders 2 --tail 5000

One JSON object on stdout: seconds until ready, the longest that writing a copy held up the event loop, and
the new process's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import time
from typing import Any

import uvloop

import replica_pair
from fleet.settings import PickerSettings


def filled(url: str, options: argparse.Namespace) -> replica_pair.Replica:
    """A replica that believes in `blocks` distinct blocks at `holders` endpoints each."""
    per_endpoint = options.blocks * options.holders // options.endpoints
    tokens = int(64 * per_endpoint * 1.1) + 1024
    replica = replica_pair.Replica(url, options.endpoints, PickerSettings(default_kv_tokens=tokens))
    draw, stride = random.Random(1), options.endpoints // options.holders
    for first in range(stride):
        blocks = [draw.getrandbits(64) for _ in range(options.blocks // stride)]
        for n in range(options.holders):
            index = replica.picker._index  # noqa: SLF001 - as engines would have filled it in hours
            index.insert(replica.addresses[first + n * stride], blocks)
    return replica


async def longest_pause(stop: asyncio.Event) -> float:
    """The most that the event loop was late."""
    loop, worst = asyncio.get_running_loop(), 0.0
    while not stop.is_set():
        before = loop.time()
        await asyncio.sleep(0.001)
        worst = max(worst, loop.time() - before - 0.001)
    return worst


async def write(url: str, options: argparse.Namespace) -> dict[str, float]:
    """One replica writes its copy, then goes on placing: the tail."""
    replica = filled(url, options)
    async with asyncio.TaskGroup() as tasks:
        exchange = tasks.create_task(replica.exchange.run())
        await replica.exchange.ready.wait()
        stop = asyncio.Event()
        watching = tasks.create_task(longest_pause(stop))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await replica.exchange.warm_starts[replica_pair.MODEL].save()
        took = time.monotonic() - began
        stop.set()
        pause = await watching
        for n in range(options.tail):
            blocks = list(range(n * 1000, n * 1000 + 16))
            decision = replica.picker.pick(replica.request(blocks), time.monotonic())
            if decision is not None and n % 10:
                replica.picker.finish(decision.id, time.monotonic(), endpoint=decision.endpoints[0])
            if n % 5 == 0:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.5)
        known = replica.picker.known_blocks
        found = await start_another(url, options)
        exchange.cancel()
    await replica.streams.close()
    return {"copy_seconds": took, "longest_pause_ms": 1e3 * pause, "blocks_there": known, **found}


async def start_another(url: str, options: argparse.Namespace) -> dict[str, float]:
    """A process of its own, timed by itself from when its modules are loaded."""
    command = [sys.executable, __file__, "--redis", url, "--endpoints", str(options.endpoints)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    found: dict[str, float] = json.loads((await process.communicate())[0])
    return found


async def start(options: argparse.Namespace) -> dict[str, float]:
    """The new replica."""
    began = time.monotonic()
    replica = replica_pair.Replica(options.redis, options.endpoints, PickerSettings())
    async with asyncio.TaskGroup() as tasks:
        exchange = tasks.create_task(replica.exchange.run())
        await replica.exchange.ready.wait()
        took = time.monotonic() - began
        exchange.cancel()
    await replica.streams.close()
    return {
        "ready_seconds": took,
        "known_blocks": replica.picker.known_blocks,
        "in_flight": replica.picker.in_flight,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Writer and newcomer over one Redis."""
    async with replica_pair.redis() as url:
        found = await write(url, options)
    chosen = {name: getattr(options, name) for name in ("blocks", "holders", "endpoints", "tail")}
    return {**chosen, **{name: round(value, 2) for name, value in found.items()}, "cores": os.cpu_count()}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--blocks", type=int, default=1_000_000, help="distinct ones")
    parser.add_argument("--holders", type=int, default=2, help="endpoints that hold each")
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--tail", type=int, default=5000, help="requests placed after the copy")
    parser.add_argument("--redis", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.redis:
        print(json.dumps(uvloop.run(start(options))))
    else:
        print(json.dumps(uvloop.run(run(options)), indent=2))


if __name__ == "__main__":
    main()
