"""`kvpilot up --demo` on the default fleet: what a newcomer measures, in either order of the phases."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import free_port

ROOT = Path(__file__).parents[2]
SECONDS = "12"
PHASES = ("round_robin", "weighted", "steered")


async def demo(order: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kvpilot", "up", "--json"),
        *("--demo", SECONDS, "--order", order, "--port", str(free_port())),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)  # one object and nothing else
    return found


@pytest.mark.timeout(150)
@pytest.mark.parametrize("order", [",".join(PHASES), ",".join(reversed(PHASES))])
async def test_steering_beats_weights_and_round_robin_whatever_ran_before(order: str) -> None:
    phases = await demo(order)
    assert list(phases) == list(PHASES)
    plain, weighted, steered = (phases[name] for name in PHASES)
    assert [phase["failed"] for phase in phases.values()] == [0, 0, 0]
    assert min(phase["requests"] for phase in phases.values()) > 100
    assert plain["offered_load"] >= 0.7
    assert steered["ttft_mean_s"] <= 0.6 * plain["ttft_mean_s"]
    assert steered["ttft_mean_s"] <= 0.8 * weighted["ttft_mean_s"]
    assert steered["ttft_p99_s"] < min(plain["ttft_p99_s"], weighted["ttft_p99_s"])
    assert steered["cached_token_ratio"] >= 2 * plain["cached_token_ratio"]
