"""`LocalMesh`: everything `kvpilot up` runs, from the first check to the last reaped child."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp
import yaml

from fleet.errors import StartError, StoreError
from fleet.settings import Settings, dump
from fleet.store.redis import RedisStore
from kvpilot.mesh import ports, probe, programs
from kvpilot.mesh.bootstrap import bootstrap
from kvpilot.mesh.resolve import listening, resolve
from kvpilot.mesh.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

START_SECONDS = 30.0
"""Longest start of one child, and of the way through Envoy: Python's imports on a busy machine."""

_POLL_SECONDS = 0.05
_LONGEST_PARENT = 60  # characters: a unix socket's whole path has 107, and our names need about 30
_SHORT_PARENT = "/tmp"  # noqa: S108 - the directory made in it is private and has a random name


class LocalMesh:
    """A mesh on this machine, for as long as its context lasts.

    `url` is where clients go. Inside the context: `settings` resolved, `store` on the fleet's Redis,
    `runtime` the private directory of all sockets, files and logs, `children` by name. For debugging, the
    file `admin-address` in `runtime` says where Envoy's admin page is.
    """

    url: str
    settings: Settings
    store: RedisStore
    runtime: Path

    def __init__(
        self,
        settings: Settings,
        *,
        source: str,
        redis_url: str | None = None,
        announce: Callable[[str], None],
    ) -> None:
        """`source` names the settings in errors; `redis_url`, from KVPILOT_REDIS_URL, replaces our own Redis.

        `announce` gets one line whenever a child dies by itself.
        """
        self.settings = settings
        self.url = f"http://{ports.dialable(settings.listen)}"
        self.children: dict[str, Child] = {}
        self._source = source
        self._redis_url = redis_url
        self._announce = announce
        self._held = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything. Raises ConfigError, StoreError or StartError, and then leaves nothing running."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._held = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """End every child and remove the runtime directory."""
        await self._held.aclose()

    @property
    def logs(self) -> Path:
        """Where each child writes `NAME.log`."""
        return self.runtime / "logs"

    def check(self) -> None:
        """Raises StartError if a child has said that it cannot start."""
        try:
            self._supervisor.check()
        except StartError as error:
            # The child read the resolved file; a person knows the one it was made from.
            raise StartError(str(error).replace(str(self._config), self._source)) from error

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Return once a request gets through Envoy to an endpoint; `timeout` in seconds.

        Raises StartError that names the child in the way, with its last log line.
        """
        wanted = _is_healthy if self._all_emulated() else _is_served
        deadline = time.monotonic() + timeout
        async with aiohttp.ClientSession() as session:
            while not wanted(answer := await probe.get(session, f"{self.url}/health")):
                self.check()
                if time.monotonic() > deadline:
                    raise self._not_ready(answer, timeout)
                await asyncio.sleep(_POLL_SECONDS)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        for field, address in listening(self.settings).items():
            ports.require_free(address, source=self._source, field=field, advice=_advice(field))
        if self._redis_url is not None:
            await self._use_redis(self._redis_url, stack)
        directory = await asyncio.to_thread(_make_directory)
        stack.push_async_callback(asyncio.to_thread, directory.cleanup)
        self.runtime = Path(directory.name)
        socket = self.runtime / "redis.sock"
        self.settings = resolve(self.settings, self.runtime, self._redis_url or f"unix://{socket}")
        await asyncio.to_thread(self._write_files)
        # In a thread, because it imports a package; and first, because without Envoy nothing needs to start.
        envoy = await asyncio.to_thread(
            programs.envoy, self.runtime / "envoy.yaml", self.runtime / "admin-address"
        )
        self._supervisor = Supervisor(self.logs, self._announce)
        self.children = self._supervisor.children
        stack.push_async_callback(self._supervisor.stop)
        if self._redis_url is None:
            await self._run_redis(socket, stack)
        await self._run_servers()
        self._supervisor.start(envoy)

    def _write_files(self) -> None:
        self.logs.mkdir()
        self._config.write_text(dump(self.settings), encoding="utf-8")
        envoy = bootstrap(self.settings.xds_address, node_id=self.runtime.name)
        (self.runtime / "envoy.yaml").write_text(yaml.safe_dump(envoy, sort_keys=False), encoding="utf-8")

    @property
    def _config(self) -> Path:
        return self.runtime / "kvpilot.yaml"

    async def _use_redis(self, url: str, stack: contextlib.AsyncExitStack) -> None:
        try:
            self.store = RedisStore(url)
            stack.push_async_callback(self.store.close)
            await self.store.ping()
        except StoreError as error:
            raise StoreError(f"KVPILOT_REDIS_URL: {error}") from error

    async def _run_redis(self, socket: Path, stack: contextlib.AsyncExitStack) -> None:
        self.store = RedisStore(self.settings.redis_url)
        stack.push_async_callback(self.store.close)
        child = self._supervisor.start(await asyncio.to_thread(programs.redis, self.runtime, socket))
        await self._until(child, self._redis_answers, f"answer on {socket}")

    async def _redis_answers(self) -> bool:
        try:
            await self.store.ping()
        except StoreError:
            return False
        return True

    async def _run_servers(self) -> None:
        """Engines, xDS server, picker: started together, waited for one after the other."""
        awaited: list[tuple[Child, str]] = []
        if emulated := self._emulated():
            engines = self._supervisor.start(programs.server("engines", "sim", self._config))
            awaited += [(engines, address) for address in emulated]
        xds = self._supervisor.start(programs.server("xds", "xds_server", self._config))
        picker = self._supervisor.start(programs.server("picker", "ext_proc", self._config))
        awaited += [(xds, self.settings.xds_address), (picker, self.settings.picker_address)]
        for child, address in awaited:
            await self._until(child, partial(probe.accepts, address), f"listen on {address}")

    async def _until(self, child: Child, probed: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await probed():
            self.check()
            if time.monotonic() > deadline:
                raise _blame(child, f"does not {what} after {START_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)

    def _emulated(self) -> list[str]:
        return [
            a for _, _, pool in self.settings.pools() if pool.emulated is not None for a in pool.endpoints
        ]

    def _all_emulated(self) -> bool:
        return all(pool.emulated is not None for _, _, pool in self.settings.pools())

    def _not_ready(self, answer: probe.Answer, timeout: float) -> StartError:
        for child in self.children.values():
            if child.restarts or child.pid is None:
                return _blame(child, "does not stay up")
        if not answer.status:
            return _blame(self.children["envoy"], f"does not answer at {self.url} after {timeout:g} s")
        refusal = f"HTTP {answer.status} {answer.text}".strip()
        if "engines" in self.children:
            return _blame(self.children["engines"], f"are not reached through Envoy ({refusal})")
        endpoints = ", ".join(self.settings.fleet().endpoints)
        return StartError(f"no endpoint answers through Envoy after {timeout:g} s ({refusal}): {endpoints}")


def _is_healthy(answer: probe.Answer) -> bool:
    return answer.status == 200


def _is_served(answer: probe.Answer) -> bool:
    return answer.status not in (0, 503)  # 503 is Envoy's own word for "no endpoint"


def _advice(field: str) -> str:
    if field == "listen":
        return "end what uses it, or choose another port with --port"
    return "end what uses it, or set another address"


def _blame(child: Child, what: str) -> StartError:
    said = child.last_line or "it logged nothing"
    return StartError(f"{child.name} {what}; last log line: {said}")


def _make_directory() -> tempfile.TemporaryDirectory[str]:
    parent = tempfile.gettempdir()
    short = parent if len(parent) <= _LONGEST_PARENT else _SHORT_PARENT
    return tempfile.TemporaryDirectory(prefix="kvpilot-", dir=short, ignore_cleanup_errors=True)
