"""A soak: many requests through a real Envoy and the picker, with all that goes wrong on the way.

    .venv/bin/python bench/soak.py --requests 100000 --at-once 32

Emulated engines answer at once. A share of the clients leave before their answer, a share send bodies that
are no requests, and two engines, in processes of their own, are killed and started again and again. At the
end the picker's ledger must be empty and its memory flat. One JSON object on stdout; exit status 1 where
something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import aiohttp
import uvloop

from fleet import settings_file
from fleet.errors import StartError
from kvpilot.mesh import LocalMesh
from kvpilot.mesh.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ABORT_SHARE, BAD_SHARE, STREAM_SHARE = 0.03, 0.03, 0.2
"""Of all requests: clients that leave, bodies that nobody can read, and answers that are streamed."""

DOWN_SECONDS = 3.0
"""Between the end of an engine and its start: some requests meet it dead and are retried elsewhere."""

DRAIN_SECONDS = 30.0
"""From the last answer until everything must be over: more than `silence_seconds`."""

SLOPE_MB = 10.0
"""Resident memory may grow by so much per 100,000 requests in the second half; the index is full by then."""

SESSIONS = 500
PROMPT_WORDS = 150

PICKER: dict[str, Any] = {"silence_seconds": 8, "sessions_max": 1000}
"""Bounds that are reached in the first half, so that growth in the second is a leak."""

EMULATED = {"speed": 1000, "kv_tokens": 20_000}


def pool(name: str, **more: Any) -> dict[str, Any]:
    """A pool of one GPU type."""
    return {"name": name, "gpu": "H100-80GB", **more}


def settings(pools: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """One model on `pools`."""
    versions = [{"name": "only", "pools": pools}]
    return {"models": [{"name": "soak", "parameters_billion": 8, "versions": versions}], **more}


@dataclass
class Engine:
    """An emulated engine in a process of its own."""

    address: str
    file: Path
    log: IO[bytes]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it; it serves a second later."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sim", "-c", str(self.file), "--log", "warning", stderr=self.log
        )

    async def kill(self) -> None:
        """End it at once."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def engines(count: int) -> AsyncIterator[list[Engine]]:
    """So many engines that may be killed, while the context lasts."""
    with tempfile.TemporaryDirectory(prefix="kv-soak-") as folder, tempfile.TemporaryFile() as log:
        made = []
        for n, port in enumerate(free_ports(count)):
            address = f"{LOOPBACK}:{port}"
            own = settings([pool("own", endpoints=[address], emulated={"count": 1, **EMULATED})])
            file = Path(folder) / f"{n}.yaml"
            file.write_text(settings_file.dump(settings_file.parse(own, "soak")))
            made.append(Engine(address, file, log))
        try:
            for engine in made:
                await engine.start()
            yield made
        finally:
            for engine in made:
                await engine.kill()


@dataclass
class Load:
    """Clients that ask one after the other; `seen` counts what they got."""

    url: str
    requests: int
    seed: int
    seen: Counter[str] = field(default_factory=Counter)
    done: int = 0

    async def run(self, at_once: int) -> None:
        """All requests, so many at a time."""
        numbers = iter(range(self.requests))
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(at_once):
                tasks.create_task(self._work(session, numbers))

    async def _work(self, session: aiohttp.ClientSession, numbers: Any) -> None:
        for n in numbers:
            draw = random.Random(f"{self.seed} {n}")
            self.seen[await self._ask(session, draw)] += 1
            self.done += 1

    async def _ask(self, session: aiohttp.ClientSession, draw: random.Random) -> str:
        kind = draw.random()
        body, leaves = _body(draw), None
        if kind < ABORT_SHARE:
            leaves = draw.uniform(0.0005, 0.01)
        elif kind < ABORT_SHARE + BAD_SHARE:
            body = draw.choice((b"", b"{", b"\xff\xfe", b"[]", body[: len(body) // 2], b"[" * 2000))
        headers = {"content-type": "application/json", "x-session-id": f"s{draw.randrange(SESSIONS)}"}
        try:
            async with asyncio.timeout(leaves):
                async with session.post("/v1/chat/completions", data=body, headers=headers) as response:
                    await response.read()
                    return str(response.status)
        except TimeoutError:
            return "left" if leaves is not None else "timeout"
        except aiohttp.ClientError:
            return "broken"


def _body(draw: random.Random) -> bytes:
    words = " ".join(
        str(draw.randrange(10**6)) for _ in range(draw.randrange(PROMPT_WORDS // 2, PROMPT_WORDS))
    )
    body = {
        "messages": [
            {"role": "system", "content": "You are tested." * 40},
            {"role": "user", "content": words},
        ],
        "max_tokens": draw.randrange(1, 4),
        "stream": draw.random() < STREAM_SHARE,
    }
    return json.dumps(body).encode()


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def slope(samples: list[tuple[int, float]]) -> float:
    """Least squares of (requests, MB): MB per 100,000 requests."""
    if len(samples) < 2:
        return 0.0
    x_mean = sum(x for x, _ in samples) / len(samples)
    y_mean = sum(y for _, y in samples) / len(samples)
    spread = sum((x - x_mean) ** 2 for x, _ in samples)
    return 1e5 * sum((x - x_mean) * (y - y_mean) for x, y in samples) / spread if spread else 0.0


async def figures(address: str) -> dict[str, float]:
    """The picker's metrics, by name without labels, summed."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as page:
        text = await page.text()
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
    return dict(found)


async def _sample(pid: int, load: Load, samples: list[tuple[int, float]]) -> None:
    while True:
        samples.append((load.done, resident_mb(pid)))
        await asyncio.sleep(0.5)


async def _disturb(load: Load, own: list[Engine], kills: int) -> None:
    """Kill an engine, at even parts of the way, and start it again."""
    for n in range(kills):
        await _until(load, load.requests * (n + 1) // (kills + 2))
        engine = own[n % len(own)]
        await engine.kill()
        await asyncio.sleep(DOWN_SECONDS)
        await engine.start()


async def _until(load: Load, done: int) -> None:
    while True:
        if load.done >= done:
            return
        await asyncio.sleep(0.05)


async def _drained(address: str) -> dict[str, float]:
    """The figures once nothing is owed, or those after `DRAIN_SECONDS`."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        found = await figures(address)
        if left_over(found) == 0 or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.25)


LEDGER = ("in_flight", "endpoint_in_flight", "endpoint_owed_tokens", "held")


def left_over(found: dict[str, float]) -> float:
    """Requests in flight and held, and tokens owed, all together; a rounding error is nothing."""
    return sum(round(found[f"kvpilot_picker_{name}"], 3) for name in LEDGER)


async def soak(requests: int, at_once: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Run it; what was seen. `passed` says whether all that must hold did."""
    metrics, listen = (f"{LOOPBACK}:{port}" for port in free_ports(2))
    async with engines(2) as own:
        ours = [
            pool(f"own{n}", endpoints=[e.address], metrics_port=int(e.address.rpartition(":")[2]))
            for n, e in enumerate(own)
        ]
        pools = [*ours, pool("emulated", emulated={"count": 4, **EMULATED})]
        data = settings(pools, listen=listen, picker_metrics=metrics, picker=copy.deepcopy(PICKER))
        said: list[str] = []
        mesh = LocalMesh(settings_file.parse(data, "soak"), source="soak", announce=said.append)
        async with mesh:
            await mesh.wait_ready()
            pid = mesh.children["picker"].pid
            if pid is None:
                raise StartError("the picker does not run")
            load, samples = Load(mesh.url, requests, seed), list[tuple[int, float]]()
            began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                sampling = tasks.create_task(_sample(pid, load, samples))
                disturbing = tasks.create_task(_disturb(load, own, kills))
                await load.run(at_once)
                seconds = time.monotonic() - began
                await disturbing
                sampling.cancel()
            after = await _drained(metrics)
            end_mb = resident_mb(pid)
            restarts = mesh.children["picker"].restarts
    return _result(load, seconds, samples, end_mb, after, kills, restarts, said)


def _result(
    load: Load,
    seconds: float,
    samples: list[tuple[int, float]],
    end_mb: float,
    after: dict[str, float],
    killed: int,
    restarts: int,
    said: list[str],
) -> dict[str, Any]:
    second_half = [sample for sample in samples if sample[0] >= load.requests / 2]
    grows = slope(second_half)
    middle = second_half[0][1] if second_half else end_mb
    counted = {
        name: round(after.get(f"kvpilot_picker_{name}_total", 0))
        for name in ("requests", "picks", "fallbacks", "retries", "failures", "expired")
    }
    ledger = {name: round(after[f"kvpilot_picker_{name}"], 3) for name in LEDGER}
    return {
        "requests": load.requests,
        "seconds": round(seconds, 1),
        "requests_per_second": round(load.requests / seconds),
        "answers": dict(sorted(load.seen.items())),
        "engines_killed": killed,
        "picker_restarts": restarts,
        "picker": counted,
        "ledger_at_end": ledger,
        "known_blocks": round(after["kvpilot_picker_known_blocks"]),
        "rss_mb": {
            "first": round(samples[0][1], 1),
            "middle": round(middle, 1),
            "end": round(end_mb, 1),
            "largest": round(max(mb for _, mb in samples), 1),
            "second_half_mb_per_100k_requests": round(grows, 2),
        },
        "said": said,
        "passed": {
            "empty_ledger": left_over(after) == 0,
            "flat_memory": grows <= SLOPE_MB,
            "no_restart": not restarts,
        },
    }


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = uvloop.run(soak(options.requests, options.at_once, options.kills, options.seed))
    print(json.dumps(result, indent=2))
    return 0 if all(result["passed"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
