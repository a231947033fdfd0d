"""`python -m kvpilot.bench.load HOST:PORT`: the clients, in a process of their own.

Reads an `Order` as JSON from each line of stdin, carries it out, and writes a `Report` as one line to stdout;
ends with its input. HTTP/1.1 with kept connections, bytes made before and hardly any parsing, so that it
takes little of the machine that it measures.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, cast

import uvloop

from fleet import address as addresses
from kvpilot.bench.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """One slice of load: `rate` requests a second, or where it is 0 as many as `connections` can carry.

    `host` is the name that the route is chosen by; `sessions`: each conversation names its own. What is due
    while every connection is busy is sent late, and its latency counts from when it was due.
    """

    host: str
    prompt_bytes: int
    seconds: float
    rate: float = 0.0
    connections: int = 16
    sessions: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an order. Latencies in ms, from when a request was due to the end of its answer."""

    answered: int
    failed: int
    seconds: float
    latencies_ms: list[float]


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self, on_answer: Callable[[Connection, bool], None]) -> None:
        self.due = 0.0  # when the request that it carries should have been sent
        self._on_answer = on_answer
        self._data = b""
        self.left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it for requests."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent

    def send(self, pieces: tuple[bytes, ...], due: float) -> None:
        """Send one request."""
        self.due = due
        self._transport.writelines(pieces)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._data, 0, end + 2)
        if len(self._data) < end + 4 + (int(length[1]) if length else 0):
            return
        ok = self._data.startswith(b"HTTP/1.1 200")
        self._data = b""
        self._on_answer(self, ok)

    def connection_lost(self, _error: Exception | None) -> None:
        """An answer that will not come any more."""
        if not self.left:
            self.left = True
            self._on_answer(self, False)

    def leave(self) -> None:
        """Close it; whatever it still carries does not count."""
        self.left = True
        self._transport.close()


class Slice:
    """Carries out one order."""

    def __init__(self, order: Order, prompts: Prompts) -> None:
        self._order = order
        self._prompts = prompts
        self._latencies: list[float] = []
        self._failed = 0
        self._free: list[Connection] = []
        self._waiting: list[float] = []  # when requests were due that found no connection
        self._in_flight = 0
        self._ended = asyncio.Event()
        self._closing = False
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {order.host}\r\n"
            f"content-type: application/json\r\ncontent-length: {prompts.body_bytes}\r\n"
        ).encode()

    async def run(self, host: str, port: int) -> Report:
        """Send for the order's time, then wait for what is under way."""
        loop = asyncio.get_running_loop()
        count = self._order.connections
        made = [await loop.create_connection(self._made, host, port) for _ in range(count)]
        connections = [connection for _, connection in made]
        began = time.perf_counter()
        if self._order.rate:
            self._free.extend(connections)
            await self._steadily(began)
        else:
            for connection in connections:
                self._send(connection, began)
            await asyncio.sleep(self._order.seconds)
        self._closing = True
        took = time.perf_counter() - began
        if self._in_flight:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._ended.wait()
            took = time.perf_counter() - began
        for connection in connections:
            connection.leave()
        return Report(len(self._latencies), self._failed, took, self._latencies)

    def _made(self) -> Connection:
        return Connection(self._answered)

    async def _steadily(self, began: float) -> None:
        number = int(self._order.rate * self._order.seconds)
        for n in range(number):
            due = began + n / self._order.rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            if self._free:
                self._send(self._free.pop(), due)
            else:
                self._waiting.append(due)

    def _send(self, connection: Connection, due: float) -> None:
        conversation, body = self._prompts.next()
        session = b"x-session-id: bench-%d\r\n\r\n" % conversation if self._order.sessions else b"\r\n"
        self._in_flight += 1
        connection.send((self._head, session, *body), due)

    def _answered(self, connection: Connection, ok: bool) -> None:
        self._in_flight -= 1
        now = time.perf_counter()
        if ok:
            self._latencies.append((now - connection.due) * 1e3)
        else:
            self._failed += 1
        if connection.left:
            pass  # Envoy closed it; the others go on
        elif self._waiting:
            self._send(connection, self._waiting.pop(0))
        elif self._order.rate:
            self._free.append(connection)
        elif not self._closing:
            self._send(connection, now)
        if self._closing and not self._in_flight:
            self._ended.set()


async def serve(address: str) -> None:
    """Carry out orders from stdin until it ends."""
    host, port = addresses.split(address)
    pools: dict[int, Prompts] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = Order(**json.loads(line))
        if order.prompt_bytes not in pools:
            pools.clear()
            pools[order.prompt_bytes] = Prompts(order.prompt_bytes)
        report = await Slice(order, pools[order.prompt_bytes]).run(host, port)
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
