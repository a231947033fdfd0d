"""The load generator against the benchmark's own upstream, without anything between them."""

from __future__ import annotations

import asyncio

import pytest

from kvpilot.bench.load import Order, Report, Slice
from kvpilot.bench.prompts import Prompts
from kvpilot.bench.upstream import Answering
from kvpilot.mesh.ports import LOOPBACK


async def carried_out(order: Order, factory: type[asyncio.Protocol] = Answering) -> Report:
    server = await asyncio.get_running_loop().create_server(factory, LOOPBACK, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await Slice(order, Prompts(order.prompt_bytes)).run(LOOPBACK, port)


async def test_sends_as_many_as_the_rate_says() -> None:
    report = await carried_out(Order("plain", 500, seconds=0.2, rate=100, connections=4))
    assert (report.answered, report.failed) == (20, 0)
    assert len(report.latencies_ms) == 20
    assert all(latency > 0 for latency in report.latencies_ms)


@pytest.mark.parametrize("size", [64, 300_000])
async def test_sends_as_much_as_goes_through(size: int) -> None:
    report = await carried_out(Order("plain", size, seconds=0.1, connections=3, sessions=True))
    assert report.answered > 3
    assert report.failed == 0
    assert report.seconds >= 0.1


class Refusing(asyncio.Protocol):
    """Answers everything with an error."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")  # type: ignore[attr-defined]


class Leaving(Refusing):
    """Hangs up."""

    def data_received(self, _data: bytes) -> None:
        self._transport.close()


@pytest.mark.parametrize("factory", [Refusing, Leaving])
async def test_counts_what_fails(factory: type[asyncio.Protocol]) -> None:
    report = await carried_out(Order("plain", 500, seconds=0.05, rate=100, connections=5), factory)
    assert report.answered == 0
    assert report.failed == 5
