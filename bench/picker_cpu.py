"""CPU per request of the picker and of Envoy, with and without steering, side by side in one mesh each.

    .venv/bin/python bench/picker_cpu.py --requests 6000 --prompt-bytes 4096 --rounds 3

Whole-process accounting from /proc, access logs and Redis included; one JSON object on stdout. Emulated
engines answer at once, so that the servers and not the models are measured. Rounds interleave the modes.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import aiohttp

from fleet import settings_file
from kvpilot.mesh import LocalMesh
from kvpilot.mesh.ports import LOOPBACK, free_ports

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
FLEET: dict[str, Any] = {
    "models": [
        {
            "name": "bench",
            "parameters_billion": 8,
            "versions": [
                {
                    "name": "only",
                    "pools": [
                        {
                            "name": "emulated",
                            "gpu": "H100-80GB",
                            "emulated": {"count": 8, "speed": 1000, "kv_tokens": 1_000_000},
                        }
                    ],
                }
            ],
        }
    ]
}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


async def drive(url: str, requests: int, prompt_bytes: int, at_once: int) -> int:
    """Send `requests` chats, `at_once` at a time; how many were answered."""
    numbers = iter(range(requests))
    answered = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        for n in numbers:
            text = (f"{n % 200} words of a prompt " * (prompt_bytes // 20))[:prompt_bytes]
            body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
            async with session.post("/v1/chat/completions", json=body) as response:
                await response.read()
                answered += response.status == 200

    async with aiohttp.ClientSession(url) as session, asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker(session))
    return answered


async def measure(mode: str, options: argparse.Namespace) -> dict[str, float]:
    """One round: a fresh mesh in `mode`, a warm-up, then the counted requests."""
    data = {**copy.deepcopy(FLEET), "listen": f"{LOOPBACK}:{free_ports(1)[0]}", "steering": mode}
    made = LocalMesh(settings_file.parse(data, "bench"), source="bench", announce=print)
    async with made as mesh:
        await mesh.wait_ready()
        await drive(mesh.url, 500, options.prompt_bytes, options.at_once)
        pids = {name: child.pid for name, child in mesh.children.items() if child.pid is not None}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        answered = await drive(mesh.url, options.requests, options.prompt_bytes, options.at_once)
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    return {
        "answered": answered,
        "picker_cpu_us_per_request": 1e6 * spent["picker"] / options.requests,
        "envoy_cpu_us_per_request": 1e6 * spent["envoy"] / options.requests,
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every round of both modes; medians, and each round's figures."""
    rounds: dict[str, list[dict[str, float]]] = {"weighted": [], "steered": []}
    for n in range(options.rounds):
        for mode, results in rounds.items():
            print(f"round {n + 1} of {options.rounds}: {mode}", file=sys.stderr)
            results.append(await measure(mode, options))
    return {
        "prompt_bytes": options.prompt_bytes,
        "endpoints": 8,
        "requests": options.requests,
        **{
            mode: {key: round(statistics.median(r[key] for r in results), 1) for key in results[0]}
            for mode, results in rounds.items()
        },
        "rounds": rounds,
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--prompt-bytes", type=int, default=4096)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(asyncio.run(run(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
