"""Drives sessions through Envoy and times what a client sees.

Open loop for arrivals, closed loop inside a session: the next turn waits for the answer before, and carries
it. A session whose turn failed ends, as nobody can go on from an answer that never came.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import aiohttp

from fleet.names import ENDPOINT_HEADER
from kvpilot.demo.answer import AnswerReader
from kvpilot.demo.workload import Conversation, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DRAIN_SECONDS = 30.0
"""How long requests that still run may take after the last one was sent; then they count as failed."""

SESSION_HEADER = "x-session-id"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request as the client saw it. Times in seconds; `sent` counts from the start of the load.

    `ttft` ends at the first chunk with content, not at the headers. `failure` is empty when all went well.
    """

    session: Session
    turn: int
    sent: float
    ttft: float | None = None
    e2e: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    endpoint: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Drive:
    """What to drive: `url` of Envoy, the model, and the sessions; no request is sent after `until` seconds.

    `salt` opens every prompt. Session ids depend on the seed alone, so that each session falls to the same
    version however the fleet is steered.
    """

    url: str
    model: str
    sessions: tuple[Session, ...]
    until: float
    seed: int
    salt: str


async def drive(what: Drive, on_outcome: Callable[[Outcome], None]) -> None:
    """Send everything and wait for the answers; `on_outcome` gets each request when it has ended."""
    limits = aiohttp.ClientTimeout(total=None)  # each request brings its own
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as http:
        driver = _Driver(what, http, on_outcome)
        async with asyncio.TaskGroup() as group:
            for session in sorted(what.sessions, key=lambda s: s.start):
                await driver.wait_until(session.start)
                group.create_task(driver.converse(session))


class _Driver:
    def __init__(
        self, what: Drive, http: aiohttp.ClientSession, on_outcome: Callable[[Outcome], None]
    ) -> None:
        self._what = what
        self._http = http
        self._on_outcome = on_outcome
        self._began = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._began

    async def wait_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, min(at, self._what.until) - self.elapsed()))

    async def converse(self, session: Session) -> None:
        conversation = Conversation(session, self._what.seed, self._what.salt)
        for number, turn in enumerate(session.turns):
            if number:
                await self.wait_until(self.elapsed() + turn.pause)
            if self.elapsed() >= self._what.until:
                return
            body = json.dumps(conversation.request(number, self._what.model)).encode()
            outcome, text = await self._ask(Outcome(session, number, self.elapsed()), body)
            self._on_outcome(outcome)
            if outcome.failure:
                return
            conversation.answered(text)

    async def _ask(self, outcome: Outcome, body: bytes) -> tuple[Outcome, str]:
        """Send one request and read its answer; whatever goes wrong is in the outcome, never raised."""
        headers = {
            "content-type": "application/json",
            SESSION_HEADER: f"demo-{self._what.seed}-{outcome.session.index}",
        }
        left = aiohttp.ClientTimeout(total=max(0.0, self._what.until - outcome.sent) + DRAIN_SECONDS)
        url = f"{self._what.url}/v1/chat/completions"
        try:
            async with self._http.post(url, data=body, headers=headers, timeout=left) as response:
                outcome = replace(outcome, endpoint=response.headers.get(ENDPOINT_HEADER, ""))
                if response.status != 200:
                    return replace(outcome, failure=f"HTTP {response.status}"), ""
                return await self._read(outcome, response.content.iter_any())
        except TimeoutError:
            return replace(outcome, failure=f"no end within {DRAIN_SECONDS:.0f} s"), ""
        except aiohttp.ClientPayloadError:
            return replace(outcome, failure="stream cut short"), ""
        except (aiohttp.ClientError, OSError) as error:
            return replace(outcome, failure=type(error).__name__), ""

    async def _read(self, outcome: Outcome, chunks: AsyncIterator[bytes]) -> tuple[Outcome, str]:
        reader = AnswerReader()
        async for chunk in chunks:
            reader.feed(chunk, self.elapsed())
        ended = self.elapsed()
        answer = reader.end()
        first = reader.first_token_at
        outcome = replace(
            outcome,
            ttft=None if first is None else first - outcome.sent,
            e2e=ended - outcome.sent,
            prompt_tokens=answer.prompt_tokens,
            cached_tokens=answer.cached_tokens,
            failure=answer.failure,
        )
        return outcome, answer.text
