"""`BenchSite`: real Envoy, real Redis, the picker, its echo, the upstream and the load, as children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Self

import aiohttp
import yaml

from fleet import settings_file
from fleet.errors import StartError, StoreError
from fleet.model import Load
from fleet.store.base import write_fleet
from fleet.store.redis import RedisStore
from kvpilot.bench.accounting import cpu_seconds, resident_mb
from kvpilot.bench.arms import ECHOED, PICKED, echo_address
from kvpilot.bench.counted import counted
from kvpilot.bench.figures import Saturated
from kvpilot.bench.fleets import settings_data
from kvpilot.bench.load import Order, Report
from kvpilot.mesh import probe, programs
from kvpilot.mesh.bootstrap import bootstrap
from kvpilot.mesh.runtime import runtime_directory
from kvpilot.mesh.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kvpilot.bench.cases import Site

START_SECONDS = 30.0
"""Longest start of one child on a busy machine."""

SETTLE_SECONDS = 0.15
"""After a slice: three flushes of Envoy's access log, whose work belongs to the slice."""

_POLL_SECONDS = 0.05
_KV_BLOCKS, _TOKENS_PER_BLOCK = 1_000_000, 64  # room for whatever is sent: nothing is to be evicted

_PROGRAMS = {
    "upstream": "kvpilot.bench.upstream",
    "picker": "ext_proc",
    "echo": "kvpilot.bench.echo",
    "xds": "kvpilot.bench.xds",
}

_SERVERS = {PICKED: "picker", ECHOED: "echo"}


class BenchSite:
    """A mesh for one site of the benchmark, for as long as its context lasts."""

    def __init__(self, site: Site, announce: Callable[[str], None]) -> None:
        """`announce` gets one line whenever a child dies by itself."""
        self._site = site
        self._announce = announce
        self._held = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything. Raises StartError, and then leaves nothing running."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._held = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """End every child and remove the runtime directory."""
        await self._held.aclose()

    async def steady(self, host: str, prompt_bytes: int, seconds: float, rate: float) -> Report:
        """A slice of load at a fixed rate. Raises StartError if a child died or a request failed."""
        return await self._carry_out(
            Order(host, prompt_bytes, seconds, rate=rate, connections=64, sessions=self._sessions)
        )

    async def saturated(self, host: str, prompt_bytes: int, seconds: float, connections: int) -> Saturated:
        """A slice of as much load as goes through, with what the server of `host` and Envoy spent on it."""
        before = self._spent(host)
        report = await self._carry_out(
            Order(host, prompt_bytes, seconds, connections=connections, sessions=self._sessions)
        )
        await asyncio.sleep(SETTLE_SECONDS)
        after = self._spent(host)
        return Saturated(report.answered, report.seconds, after[0] - before[0], after[1] - before[1])

    async def picker_state(self) -> dict[str, float]:
        """Resident memory of the picker in MB, and what it counted."""
        async with aiohttp.ClientSession() as session:
            address = self._settings.picker_metrics
            async with session.get(f"http://{address}/metrics") as response:
                text = await response.text()
        return {"rss_mb": resident_mb(self._pid("picker")), **counted(text)}

    @property
    def _sessions(self) -> bool:
        return self._site.mode == "session"

    def _spent(self, host: str) -> tuple[float, float]:
        server = _SERVERS.get(host)
        return cpu_seconds(self._pid(server)) if server else 0.0, cpu_seconds(self._pid("envoy"))

    def _pid(self, name: str) -> int:
        child = self._supervisor.children[name]
        if child.pid is None or child.restarts:
            raise StartError(f"{name} died during the measurement: {child.last_line or 'it logged nothing'}")
        return child.pid

    async def _carry_out(self, order: Order) -> Report:
        assert self._load.stdin is not None and self._load.stdout is not None  # noqa: S101, PT018 - pipes
        self._load.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        line = await self._load.stdout.readline()
        if not line:
            raise StartError("the load generator ended: see its message above")
        report = Report(**json.loads(line))
        if report.failed or not report.answered:
            raise StartError(
                f"{report.failed} of {report.failed + report.answered} requests to {order.host!r} failed"
            )
        return report

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._runtime = await stack.enter_async_context(runtime_directory())
        data = settings_data(self._site, self._runtime)
        self._settings = settings_file.parse(data, "bench")
        await asyncio.to_thread(self._write_files, data)
        logs = self._runtime / "logs"
        self._supervisor = Supervisor(logs, self._announce)
        stack.push_async_callback(self._supervisor.stop)
        await self._run_redis(stack)
        for name, module in _PROGRAMS.items():
            self._supervisor.start(programs.server(name, module, self._config("kvpilot")))
        for address in self._awaited():
            await self._until(partial(probe.accepts, address), f"nobody listens on {address}")
        envoy = await asyncio.to_thread(
            programs.envoy, self._config("envoy"), self._runtime / "admin-address"
        )
        self._supervisor.start(envoy)
        await self._until(self._is_reached, "no endpoint answers through Envoy")
        await self._start_load(stack)

    def _awaited(self) -> tuple[str, ...]:
        settings = self._settings
        endpoint = next(iter(settings.fleet().endpoints))
        return (settings.picker_address, echo_address(settings), settings.xds_address, endpoint)

    def _config(self, name: str) -> Path:
        return self._runtime / f"{name}.yaml"

    def _write_files(self, settings: dict[str, object]) -> None:
        (self._runtime / "logs").mkdir()
        envoy = bootstrap(self._settings.xds_address, node_id=self._runtime.name)
        for name, data in (("kvpilot", settings), ("envoy", envoy)):
            self._config(name).write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")

    async def _run_redis(self, stack: contextlib.AsyncExitStack) -> None:
        socket = self._runtime / "redis.sock"
        self._supervisor.start(await asyncio.to_thread(programs.redis, self._runtime, socket))
        store = RedisStore(self._settings.redis_url)
        stack.push_async_callback(store.close)
        await self._until(partial(_answers, store), "Redis does not answer")
        refreshing = asyncio.create_task(self._refresh_loads(store))
        stack.callback(refreshing.cancel)

    async def _refresh_loads(self, store: RedisStore) -> None:
        """What a collector would write: fresh loads each second, so that the picker reads them as in life."""
        fleet = self._settings.fleet()
        while True:
            load = Load(
                time.time(), kv_blocks_max=_KV_BLOCKS, tokens_per_block=_TOKENS_PER_BLOCK, max_requests=256
            )
            with contextlib.suppress(StoreError):  # Redis is watched by the supervisor
                await write_fleet(store, fleet, dict.fromkeys(fleet.endpoints, load))
            await asyncio.sleep(self._settings.collect.interval_seconds)

    async def _is_reached(self) -> bool:
        async with aiohttp.ClientSession() as session:
            return (await probe.get(session, f"http://{self._settings.listen}/health")).status == 200

    async def _until(self, probed: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await probed():
            self._supervisor.check()
            if time.monotonic() > deadline:
                said = [f"{c.name}: {c.last_line}" for c in self._supervisor.children.values() if c.last_line]
                raise StartError(f"{otherwise} after {START_SECONDS:g} s; {'; '.join(said)}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _start_load(self, stack: contextlib.AsyncExitStack) -> None:
        self._load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "kvpilot.bench.load", self._settings.listen),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,  # a report's latencies are one line
            env=programs.environment(),
        )
        stack.push_async_callback(_end, self._load)


async def _answers(store: RedisStore) -> bool:
    try:
        await store.ping()
    except StoreError:
        return False
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
