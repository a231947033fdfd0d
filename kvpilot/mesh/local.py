"""`LocalMesh`: everything `kvpilot up` runs, from the first check to the last reaped child."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Self

import aiohttp
import yaml

from fleet import address as addresses
from fleet.errors import StartError, StoreError
from fleet.settings_file import dump
from fleet.store.redis import RedisStore
from kvpilot.mesh import ports, probe, programs
from kvpilot.mesh.bootstrap import bootstrap
from kvpilot.mesh.resolve import listening, resolve
from kvpilot.mesh.runtime import runtime_directory
from kvpilot.mesh.supervisor import Child, Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fleet.settings import Settings


START_SECONDS = 30.0
"""Longest start of one child, and of the way through Envoy: Python's imports on a busy machine."""

_POLL_SECONDS = 0.05


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
        """Raises StartError if a child cannot start or, before the mesh was ready, does not stay up."""
        try:
            self._supervisor.check()
        except StartError as error:
            raise StartError(self._in_their_words(str(error))) from error

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Return once a request gets through Envoy to an endpoint; `timeout` in seconds.

        From then on a child that dies is restarted for ever. Raises StartError that names the child in the
        way, with its last log line.
        """
        wanted = _is_healthy if self._all_emulated() else _is_served
        deadline = time.monotonic() + timeout
        async with aiohttp.ClientSession() as session:
            while True:
                answer = await self._ask(session)
                self.check()
                self._check_accepted()
                if wanted(answer):
                    break
                if time.monotonic() > deadline:
                    raise self._not_ready(answer, timeout)
                await asyncio.sleep(_POLL_SECONDS)
        self._supervisor.settle()

    async def _ask(self, session: aiohttp.ClientSession) -> probe.Answer:
        """What our own Envoy answers: whatever else may answer at its address does not count."""
        if self.children["envoy"].pid is None or not await asyncio.to_thread(self._admin_address.exists):
            return probe.Answer(0, "not running")
        return await probe.get(session, f"{self.url}/health")

    def _check_accepted(self) -> None:
        """Raises StartError once Envoy has refused configuration: it does not change by itself."""
        xds = self.children["xds"]
        if said := xds.said(f"{self.runtime.name} refused "):
            raise StartError(f"{xds.name} has made configuration that Envoy does not take: {said}")

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._take_addresses(stack)
        if self._redis_url is not None:
            await self._use_redis(self._redis_url, stack)
        await self._make_files(stack)
        # In a thread, because it imports a package; and first, because without Envoy nothing needs to start.
        envoy = await asyncio.to_thread(programs.envoy, self._bootstrap, self._admin_address)
        self._supervisor = Supervisor(self.logs, self._announce)
        self.children = self._supervisor.children
        stack.push_async_callback(self._supervisor.stop)
        if self._redis_url is None:
            await self._run_redis(stack)
        await self._run_servers()
        self._supervisor.start(envoy)

    def _take_addresses(self, stack: contextlib.AsyncExitStack) -> None:
        """Hold the clients' address, which two Envoys would share in silence; our servers share none."""
        for field, address in listening(self.settings).items():
            held = ports.hold(address, source=self._source, field=field, advice=_advice(field))
            if field == "listen":
                stack.enter_context(held)
            else:
                held.close()

    async def _make_files(self, stack: contextlib.AsyncExitStack) -> None:
        try:
            self.runtime = await stack.enter_async_context(runtime_directory())
            redis_url = self._redis_url or f"unix://{self._redis_socket}"
            self.settings = resolve(self.settings, self.runtime, redis_url)
            await asyncio.to_thread(self._write_files)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise StartError(f"the mesh's own files cannot be made: {where}{error.strerror}") from error

    def _write_files(self) -> None:
        self.logs.mkdir()
        self._key.write_bytes(secrets.token_hex(32).encode())
        self._config.write_text(dump(self.settings), encoding="utf-8")
        envoy = bootstrap(self.settings.xds_address, node_id=self.runtime.name)
        self._bootstrap.write_text(yaml.safe_dump(envoy, sort_keys=False), encoding="utf-8")

    @property
    def _config(self) -> Path:
        return self.runtime / "kvpilot.yaml"

    @property
    def _key(self) -> Path:
        """Seeds the prefix hashes, so that a restarted picker knows its predecessor's blocks."""
        return self.runtime / "key"

    @property
    def _bootstrap(self) -> Path:
        return self.runtime / "envoy.yaml"

    @property
    def _admin_address(self) -> Path:
        return self.runtime / "admin-address"

    @property
    def _redis_socket(self) -> Path:
        return self.runtime / "redis.sock"

    async def _use_redis(self, url: str, stack: contextlib.AsyncExitStack) -> None:
        try:
            self.store = RedisStore(url)
            stack.push_async_callback(self.store.close)
            await self.store.ping()
        except StoreError as error:
            raise StoreError(f"KVPILOT_REDIS_URL: {error}") from error

    async def _run_redis(self, stack: contextlib.AsyncExitStack) -> None:
        socket = self._redis_socket
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
        awaited.append((xds, self.settings.xds_address))
        for number in range(self.settings.picker.workers):
            awaited.append((picker, addresses.of_worker(self.settings.picker_address, number)))
        for child, address in awaited:
            await self._until(child, partial(probe.accepts, address), f"listen on {address}")

    async def _until(self, child: Child, probed: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await probed():
            self.check()
            if time.monotonic() > deadline:
                raise self._blame(child, f"does not {what} after {START_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)

    def _emulated(self) -> list[str]:
        return [
            address
            for _, _, pool in self.settings.pools()
            if pool.emulated is not None
            for address in (*pool.endpoints, *pool.grpc_addresses)
        ]

    def _all_emulated(self) -> bool:
        return all(pool.emulated is not None for _, _, pool in self.settings.pools())

    def _not_ready(self, answer: probe.Answer, timeout: float) -> StartError:
        for child in self.children.values():
            if child.restarts or child.pid is None:
                return self._blame(child, "does not stay up")
        if not answer.status:
            return self._blame(self.children["envoy"], f"does not answer at {self.url} after {timeout:g} s")
        refusal = f"HTTP {answer.status} {answer.text}".strip()
        if "engines" in self.children:
            return self._blame(self.children["engines"], f"are not reached through Envoy ({refusal})")
        endpoints = ", ".join(self.settings.fleet().endpoints)
        return StartError(f"no endpoint answers through Envoy after {timeout:g} s ({refusal}): {endpoints}")

    def _blame(self, child: Child, what: str) -> StartError:
        said = child.last_line or "it logged nothing"
        return StartError(self._in_their_words(f"{child.name} {what}; last log line: {said}"))

    def _in_their_words(self, text: str) -> str:
        """A child read the resolved settings; a person knows the file that they were made from."""
        return text.replace(str(self._config), self._source)


def _is_healthy(answer: probe.Answer) -> bool:
    return answer.status == 200


def _is_served(answer: probe.Answer) -> bool:
    return answer.status not in (0, 503)  # 503 is Envoy's own word for "no endpoint"


def _advice(field: str) -> str:
    if field == "listen":
        return "end what uses it, or choose another port with --port"
    return "end what uses it, or set another address"
