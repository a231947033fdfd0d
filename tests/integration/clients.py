"""Clients that put load on a mesh and remember what they saw."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from fleet.model import Traffic
from fleet.names import ENDPOINT_HEADER, VERSION_HEADER
from fleet.store.base import read_fleet
from tests.support import until

if TYPE_CHECKING:
    from kvpilot.mesh import LocalMesh

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got. `begun`: response headers arrived; `whole`: so did the end."""

    status: int
    endpoint: str = ""
    version: str = ""
    begun: bool = False
    whole: bool = False
    streamed: bool = False
    started: float = 0.0  # on the monotonic clock
    seconds: float = 0.0
    cached_tokens: int = 0

    @property
    def lost(self) -> bool:
        """Refused or broken although no answer had begun."""
        return not self.whole and not (self.begun and self.status == 200)


async def ask(
    session: aiohttp.ClientSession,
    content: str,
    *,
    headers: dict[str, str] | None = None,
    streamed: bool = False,
    max_tokens: int = 1,
) -> Answer:
    """One chat request to the session's base URL."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "stream": streamed,
    }
    data = io.BytesIO(json.dumps(body).encode())  # aiohttp warns of large plain bytes
    started = time.monotonic()
    status, endpoint, version, begun, whole, cached = 0, "", "", False, False, 0
    try:
        async with session.post(CHAT, data=data, headers=headers) as response:
            status, begun = response.status, True
            endpoint = response.headers.get(ENDPOINT_HEADER, "")
            version = response.headers.get(VERSION_HEADER, "")
            text = await response.read()
            whole = status == 200 and (not streamed or text.endswith(b"data: [DONE]\n\n"))
            if whole and not streamed:
                usage = (await response.json())["usage"]
                cached = usage["prompt_tokens_details"]["cached_tokens"]
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        pass
    seconds = time.monotonic() - started
    return Answer(status, endpoint, version, begun, whole, streamed, started, seconds, cached)


@dataclass
class Workers:
    """They ask one question after another until told to stop; every second answer is streamed."""

    url: str
    workers: int = 24
    max_tokens: int = 200
    answers: list[Answer] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _number: itertools.count[int] = field(default_factory=itertools.count)

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        for _ in range(self.workers):
            self._tasks.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        await self._tasks.__aexit__(None, None, None)

    async def _work(self) -> None:
        async with client(self.url) as session:
            while not self._stop.is_set():
                n = next(self._number)
                text = f"question {n} " * 40
                self.answers.append(await ask(session, text, streamed=n % 2 == 0, max_tokens=self.max_tokens))


def client(url: str) -> aiohttp.ClientSession:
    """A client session for a mesh."""
    return aiohttp.ClientSession(
        url,
        headers={"content-type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=30),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def many(url: str, contents: list[tuple[str, dict[str, str]]], at_once: int = 32) -> list[Answer]:
    """Ask all of `contents` (text, headers), `at_once` at a time, in order."""
    answers: list[Answer] = [Answer(0)] * len(contents)
    numbers = iter(range(len(contents)))

    async def worker(session: aiohttp.ClientSession) -> None:
        for n in numbers:
            text, headers = contents[n]
            answers[n] = await ask(session, text, headers=headers)

    async with client(url) as session, asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker(session))
    return answers


async def picker_count(metrics_address: str, name: str, label: str) -> float:
    """One counter of the picker's metrics page; 0 while it does not exist."""
    return await picker_counts(metrics_address, name, label)


async def picker_counts(metrics_address: str, name: str, *labels: str) -> float:
    """The sum of a counter's values that have all `labels`."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{metrics_address}/metrics") as page:
        text = await page.text()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(f"{name}_total{{") and all(f'"{label}"' in line for label in labels)
    )


async def session_on(session: aiohttp.ClientSession, version: str) -> dict[str, str]:
    """Headers of a chat session whose requests go to `version` (`model/version`)."""
    for n in range(200):
        headers = {"x-session-id": f"stays-{n}"}
        if (await ask(session, "hello", headers=headers)).version == version:
            return headers
    raise AssertionError(f"none of 200 sessions is on {version}")


async def nothing_in_flight(mesh: LocalMesh) -> None:
    """The picker's ledger is empty: whatever happened, nothing is owed for requests that are over."""

    async def counted() -> bool:
        traffic = await read_fleet(mesh.store, mesh.settings.fleet(), Traffic)
        return bool(traffic) and sum(t.in_flight for t in traffic.values()) == 0

    await until(counted, seconds=20)
