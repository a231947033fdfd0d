"""One engine model on a real clock: wakes it when something happens there, and tells who waits.

One timer per engine, armed only while it has work. Streams hear of new tokens at their first, their last,
and every CHUNK_SECONDS in between.
"""

from __future__ import annotations

import asyncio
import math
import time
from itertools import count
from typing import TYPE_CHECKING

from sim.engine import Engine, Event, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.engine import Gauges

CHUNK_SECONDS = 0.025
"""Streams are told of their new tokens this often: as smooth as a reader sees, a few tokens per chunk."""

_MIN_WAIT_SECONDS = 0.001
"""The event loop's timers count milliseconds: a shorter wait would come back at once, again and again."""


class Ticket:
    """One request at a backend: how far it is, and a way to wait for more."""

    def __init__(self, request_id: int, output_tokens: int, *, stream: bool) -> None:
        self.id = request_id
        self.output_tokens = output_tokens
        self.stream = stream
        self.emitted = 0  # output tokens there are; told in a stream, else only at the end
        self.cached_tokens = 0
        self._news = asyncio.Event()

    @property
    def finished(self) -> bool:
        """Whether all tokens are there."""
        return self.emitted >= self.output_tokens

    async def more(self) -> None:
        """Wait until there are further tokens."""
        await self._news.wait()
        self._news.clear()

    def tell(self, emitted: int) -> None:
        """There are `emitted` tokens now."""
        if emitted > self.emitted:
            self.emitted = emitted
            self._news.set()


class Backend:
    """An engine that lives: submit requests, await their tickets. Used from one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids = count(1)
        self._tickets: dict[int, Ticket] = {}
        self._streams: dict[int, Ticket] = {}  # those between their first and their last token
        self._next_chunk = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def submit(
        self, prompt_tokens: int, output_tokens: int, blocks: Sequence[int], *, stream: bool
    ) -> Ticket:
        """Hand a request to the engine. Raises RequestTooLargeError."""
        ticket = Ticket(next(self._ids), output_tokens, stream=stream)
        request = Request(ticket.id, prompt_tokens, output_tokens, blocks)
        self._engine.submit(request, time.monotonic())
        self._tickets[ticket.id] = ticket
        self._arm()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this request any more; without effect once it is over."""
        if self._tickets.pop(ticket.id, None) is None:
            return
        self._streams.pop(ticket.id, None)
        self._engine.cancel(ticket.id, time.monotonic())
        self._arm()

    def gauges(self) -> Gauges:
        """What the engine tells of itself now."""
        return self._engine.gauges(time.monotonic())

    def _wake(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = time.monotonic()
        for event in self._engine.advance(now):
            self._tell(event)
        if now >= self._next_chunk:
            self._next_chunk = now + CHUNK_SECONDS
            for ticket in self._streams.values():
                ticket.tell(self._engine.progress(ticket.id, now))
        self._arm()

    def _tell(self, event: Event) -> None:
        ticket = self._tickets.get(event.id)
        if ticket is None:
            return  # cancelled between the event and this wake
        ticket.cached_tokens = event.cached_tokens
        if event.finished:
            ticket.tell(ticket.output_tokens)
            del self._tickets[event.id]
            self._streams.pop(event.id, None)
        elif ticket.stream:
            ticket.tell(1)
            self._streams[event.id] = ticket

    def _arm(self) -> None:
        """Set the timer for what comes next: an event in the engine, or the streams' next chunk."""
        if not self._streams:
            self._next_chunk = math.inf
        elif self._next_chunk == math.inf:
            self._next_chunk = time.monotonic() + CHUNK_SECONDS
        wake_at = min(self._engine.next_event_at(), self._next_chunk)
        if wake_at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, wake_at
        if wake_at < math.inf:
            wait = max(_MIN_WAIT_SECONDS, wake_at - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._wake)
