"""`python -m kvpilot.bench.echo -c FILE`: a picker that answers every message with a constant.

It reads and writes the same messages over the same transport as the picker and decides nothing, so what it
costs is the price of being asked at all. It names no pick, so Envoy sends it no access log.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc import reply
from ext_proc.server import generic_handlers, serve_picker
from fleet.process import main
from kvpilot.bench.arms import echo_address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from fleet.settings import Settings

NO_BODY: bytes = pb.ProcessingResponse(
    request_headers=pb.HeadersResponse(),
    mode_override=processing_mode_pb2.ProcessingMode(
        request_body_mode=processing_mode_pb2.ProcessingMode.BodySendMode.NONE
    ),
).SerializeToString()
"""Go on, and keep the body."""


class Echo:
    """Stands in for `ext_proc.stream.PickStream`."""

    def __init__(self, *, early: bool) -> None:
        """`early`: answer for good in the header phase."""
        self._early = early
        self.done = False

    def receive(self, data: bytes) -> bytes:
        """The constant that fits the message."""
        if pb.ProcessingRequest.FromString(data).WhichOneof("request") == "request_headers":
            self.done = self._early
            return NO_BODY if self._early else reply.HEADERS_PASS
        self.done = True
        return reply.BODY_PASS


class EchoService:
    """Stands in for `ext_proc.server.PickerService`."""

    def __init__(self, *, early: bool) -> None:
        """See `Echo`."""
        self._early = early

    def handlers(self, cluster: str = "") -> Sequence[Any]:  # noqa: ARG002 - answers all alike
        """ext_proc and an access log that nobody writes."""
        return generic_handlers(self._process, self._no_logs)

    async def _process(self, _: object, context: Any) -> None:
        echo = Echo(early=self._early)
        while not echo.done:
            data = await context.read()
            if not isinstance(data, bytes):
                return
            await context.write(echo.receive(data))

    async def _no_logs(self, _: object, context: Any) -> bytes:
        while isinstance(await context.read(), bytes):
            pass
        return b""


async def serve(settings: Settings, _source: str, stop: asyncio.Event) -> None:
    """Answer beside the picker of these settings until `stop` is set."""
    service = EchoService(early=early(settings))
    address, transport = echo_address(settings), settings.picker.transport
    async with serve_picker(service, address, settings.envoy.buffer_bytes, transport=transport):
        await stop.wait()


def early(settings: Settings) -> bool:
    """Whether the picker of these settings answers in the header phase."""
    return bool(getattr(settings.picker, "session_fast_path", False))


if __name__ == "__main__":
    sys.exit(main("kvpilot.bench.echo", "a picker that decides nothing", serve))
