"""`python -m kvpilot.bench.echo -c FILE`: a picker that answers every message with a constant.

It reads and writes the same messages over the same transport as the picker and decides nothing, so what it
costs is the price of being asked at all. It names no pick, so Envoy sends it no access log.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc import gateway_reply, reply
from ext_proc.server import generic_handlers, serve_picker
from fleet.process import main
from kvpilot.bench.arms import as_gateway, echo_address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from fleet.settings import Settings

NO_BODY: bytes = pb.ProcessingResponse(
    request_headers=pb.HeadersResponse(),
    mode_override=processing_mode_pb2.ProcessingMode(
        request_body_mode=processing_mode_pb2.ProcessingMode.BodySendMode.NONE
    ),
).SerializeToString()
"""Go on, and keep the body."""

RESPONSE_HEADERS_PASS: bytes = gateway_reply.served("", tell=False)
"""The answer's headers go on as they are."""


class Echo:
    """Stands in for `ext_proc.stream.PickStream`."""

    def __init__(self, *, early: bool) -> None:
        """`early`: answer for good in the header phase."""
        self._early = early
        self.done = False

    def receive(self, data: bytes) -> Sequence[bytes]:
        """The constant that fits the message."""
        if pb.ProcessingRequest.FromString(data).WhichOneof("request") == "request_headers":
            self.done = self._early
            return (NO_BODY if self._early else reply.HEADERS_PASS,)
        self.done = True
        return (reply.BODY_PASS,)


class DuplexEcho:
    """Stands in for `ext_proc.duplex.DuplexStream`: sends everything back, the request once it is there."""

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self._back = False  # the request was sent back
        self.done = False

    def receive(self, data: bytes) -> Sequence[bytes]:
        """What is due after the message; of a request nothing before its end."""
        message = pb.ProcessingRequest.FromString(data)
        kind = message.WhichOneof("request")
        if kind == "request_headers":
            self._back = message.request_headers.end_of_stream
            return (reply.HEADERS_PASS,) if self._back else ()
        if kind == "request_body":
            return self._on_request_body(message.request_body)
        if kind == "request_trailers":
            return (*self._request_back(end=False), gateway_reply.TRAILERS["request"])
        if kind == "response_headers":
            self.done = message.response_headers.end_of_stream
            return (RESPONSE_HEADERS_PASS,)
        if kind == "response_body":
            part = message.response_body
            self.done = _ends(part)
            return tuple(gateway_reply.chunks("response", part.body, end=self.done))
        self.done = True
        return (gateway_reply.TRAILERS["response"],)

    def _on_request_body(self, part: pb.HttpBody) -> Sequence[bytes]:
        self._body.append(part.body)
        return self._request_back(end=True) if _ends(part) else ()

    def _request_back(self, *, end: bool) -> Sequence[bytes]:
        if self._back:
            return ()  # Envoy may tell an end twice
        self._back = True
        body = b"".join(self._body)
        return (reply.HEADERS_PASS, *gateway_reply.chunks("request", body, end=end))


def _ends(part: pb.HttpBody) -> bool:
    return bool(part.end_of_stream or part.end_of_stream_without_message)


class EchoService:
    """Stands in for `ext_proc.server.PickerService`."""

    def __init__(self, make: Callable[[], Echo | DuplexEcho]) -> None:
        """`make` makes what answers one exchange."""
        self._make = make

    def handlers(self, cluster: str = "") -> Sequence[Any]:  # noqa: ARG002 - answers all alike
        """ext_proc and an access log that nobody writes."""
        return generic_handlers(self._process, self._no_logs)

    async def _process(self, _: object, context: Any) -> None:
        echo = self._make()
        while not echo.done:
            data = await context.read()
            if not isinstance(data, bytes):
                return
            for answer in echo.receive(data):
                await context.write(answer)

    async def _no_logs(self, _: object, context: Any) -> bytes:
        while isinstance(await context.read(), bytes):
            pass
        return b""


async def serve(settings: Settings, _source: str, stop: asyncio.Event) -> None:
    """Answer beside the picker of these settings until `stop` is set."""
    early = settings.picker.session_fast_path
    service = EchoService(DuplexEcho if as_gateway(settings) else partial(Echo, early=early))
    address, transport = echo_address(settings), settings.picker.transport
    async with serve_picker(service, address, settings.envoy.buffer_bytes, transport=transport):
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main("kvpilot.bench.echo", "a picker that decides nothing", serve))
