"""`python -m kvpilot.bench.upstream -c FILE`: one cheap process behind every address of the fleet.

The endpoints are addresses of the loopback network with one port; it listens on all of them at once and
answers every request with the same short completion as soon as the body is there.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, cast

from fleet import address as addresses
from fleet.process import main

if TYPE_CHECKING:
    from fleet.settings import Settings

_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - the whole loopback network at once; the bench's own machine
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_ANSWER = (
    b'{"id":"a","object":"chat.completion","created":0,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"."},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,'
    b'"completion_tokens":1,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":0}}}'
)
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_ANSWER),
    _ANSWER,
)


class Answering(asyncio.Protocol):
    """One connection: counts the bytes of each request and answers when they are all there."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0  # body bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it for answers."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by descent

    def data_received(self, data: bytes) -> None:
        """Some of a request; several at once, if it is pipelined."""
        while data:
            if self._missing:
                taken = min(self._missing, len(data))
                self._missing -= taken
                data = data[taken:]
            else:
                self._head += data
                head, end, data = self._head.partition(b"\r\n\r\n")
                if not end:
                    return
                self._head = b""
                length = _LENGTH.search(head)
                self._missing = int(length[1]) if length else 0
                if self._missing:
                    continue
            if not self._missing:
                self._transport.write(RESPONSE)


async def serve(settings: Settings, _source: str, stop: asyncio.Event) -> None:
    """Answer on the port of the first endpoint until `stop` is set."""
    port = addresses.split(next(iter(settings.fleet().endpoints)))[1]
    server = await asyncio.get_running_loop().create_server(Answering, _EVERY_ADDRESS, port, backlog=4096)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main("kvpilot.bench.upstream", "every endpoint of a benchmark's fleet", serve))
