"""How late replicas hear of each other's placements, and what that costs: two processes over a real Redis.

    .venv/bin/python bench/replica_lag.py --events 2000 --rate 200 --prompt-blocks 16

Each process places `--rate` requests a second, and ends each a while later; the other one measures, on the
clock of Redis, how long ago it was placed. One JSON object on stdout: milliseconds, and microseconds of CPU
of a whole process for one request placed here and one heard of, with the picks themselves taken out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from functools import partial
from typing import Any

import uvloop

import replica_pair
from fleet.quantiles import nearest_rank
from fleet.settings import PickerSettings

ENDS_AFTER_SECONDS = 0.5
START_SECONDS = 3.0
"""Until both know of each other."""


async def child(options: argparse.Namespace) -> None:
    """Place and listen; print what was seen."""
    replica = replica_pair.Replica(options.redis, options.endpoints, PickerSettings())
    lags: list[float] = []
    replica.link.metrics.lag.observe = lags.append  # type: ignore[assignment,method-assign]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(replica.exchange.run())
        await replica.exchange.ready.wait()
        await asyncio.sleep(START_SECONDS)
        lags.clear()
        picking = await drive(replica, options)
        await asyncio.sleep(START_SECONDS)
        cpu = time.process_time() - picking["began_cpu"] - 1e-9
        running.cancel()
    await replica.streams.close()
    print(
        json.dumps(
            {
                "lags": lags,
                "cpu": cpu - picking["cpu"],
                "in_flight": replica.picker.in_flight,
            }
        )
    )


async def drive(replica: replica_pair.Replica, options: argparse.Namespace) -> dict[str, float]:
    """Place at the rate asked for; CPU seconds of the picks alone."""
    loop, picking = asyncio.get_running_loop(), 0.0
    began, began_cpu = loop.time(), time.process_time()
    for n in range(options.events):
        await asyncio.sleep(max(0.0, began + n / options.rate - loop.time()))
        blocks = list(range(n * 1000, n * 1000 + options.prompt_blocks))
        replica_now, before = time.monotonic(), time.thread_time()
        publish, replica.picker.publish = replica.picker.publish, lambda *_: None
        decision = replica.picker.pick(replica.request(blocks), replica_now)
        replica.picker.publish = publish
        picking += time.thread_time() - before
        if decision is None:
            raise SystemExit("nothing to pick from")
        publish(decision.endpoints[0], decision.placed)
        loop.call_later(ENDS_AFTER_SECONDS, partial(end, replica, decision.id, decision.endpoints[0]))
    await asyncio.sleep(2 * ENDS_AFTER_SECONDS)
    return {"cpu": picking, "began_cpu": began_cpu}


def end(replica: replica_pair.Replica, id_: str, endpoint: str) -> None:
    """The log said that it is over."""
    now = time.monotonic()
    replica.picker.first_token(id_, now - 0.1)
    replica.picker.finish(id_, now, endpoint=endpoint, output_tokens=10)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Two children over one Redis."""
    async with replica_pair.redis() as url:
        command = [sys.executable, __file__, "--redis", url]
        for name in ("events", "rate", "prompt_blocks", "endpoints"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        children = [
            await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(2)
        ]
        found = [json.loads((await process.communicate())[0]) for process in children]
    lags = sorted(lag for one in found for lag in one["lags"])
    return {
        "events": len(lags),
        "rate": options.rate,
        "prompt_blocks": options.prompt_blocks,
        "endpoints": options.endpoints,
        "p50_ms": round(1e3 * nearest_rank(lags, 0.5), 2),
        "p99_ms": round(1e3 * nearest_rank(lags, 0.99), 2),
        "max_ms": round(1e3 * lags[-1], 2),
        "cpu_us_per_request_here_and_there": round(
            1e6 * sum(one["cpu"] for one in found) / (2 * options.events), 1
        ),
        "left_in_flight": [one["in_flight"] for one in found],
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=2000, help="placed by each process")
    parser.add_argument("--rate", type=float, default=200.0, help="a second, by each")
    parser.add_argument("--prompt-blocks", type=int, default=16, help="16 are 4 KB")
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--redis", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.redis:
        uvloop.run(child(options))
    else:
        print(json.dumps(uvloop.run(run(options)), indent=2))


if __name__ == "__main__":
    main()
