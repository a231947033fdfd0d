"""The picker's gRPC face: ext_proc, Envoy's access log, and health, over raw bytes.

grpc.aio on uvloop with `context.read()` and `write()` and handlers without (de)serializers cost the least
per request of what was measured (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc import completions
from ext_proc.stream import PickStream
from ext_proc.waiting import DISPATCH_SECONDS
from fleet.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from ext_proc.replication.parking import Parking
    from ext_proc.steer import Steerer
    from ext_proc.waiting import Held, WaitingRoom

_log = logging.getLogger(__name__)

EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"

MESSAGE_OVERHEAD_BYTES = 1 << 20
"""Room for headers and framing above the largest body that Envoy buffers."""

STOP_GRACE_SECONDS = 0.5
"""A pick takes a millisecond; whoever has not been answered by then, or is held, fails open."""


class PickerService:
    """What Envoy calls."""

    def __init__(
        self,
        steerer: Steerer,
        picker: Picker,
        room: WaitingRoom,
        metrics: PickerMetrics,
        parking: Parking | None = None,
    ) -> None:
        """`parking` keeps log entries about picks that another replica may have made."""
        self._parking = parking
        self._steerer = steerer
        self._picker = picker
        self._room = room
        self._metrics = metrics
        self._someone_waits = asyncio.Event()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """ext_proc and the access log, for a gRPC server."""
        process: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._process)
        log: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(self._stream_access_logs)
        return (
            grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": process}),
            grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {"StreamAccessLogs": log}),
        )

    async def _process(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        stream = PickStream(self._steerer, self._room.longest)
        answered = False
        try:
            while not stream.done:
                data = await context.read()
                if data is grpc.aio.EOF:
                    break
                answer = stream.receive(data, time.monotonic())
                if stream.held is not None:
                    self._someone_waits.set()
                if answer is not None:
                    await context.write(answer)
                if stream.held is not None:
                    await self._turn_of(stream.held)
                    await context.write(stream.go(stream.held))
            answered = True
        finally:
            self._count(stream, answered=answered)

    async def dispatch(self) -> None:
        """Let those go who wait and whose turn has come, for ever."""
        while True:
            await self._someone_waits.wait()
            self._someone_waits.clear()
            while len(self._room):
                await asyncio.sleep(DISPATCH_SECONDS)
                self._room.dispatch(time.monotonic())

    async def _turn_of(self, held: Held) -> None:
        if not held.settled:
            turn = asyncio.Event()
            held.wake = turn.set
            with self._metrics.held.track_inprogress():
                await turn.wait()
        self._metrics.held_seconds.observe(time.monotonic() - held.arrived)

    def _count(self, stream: PickStream, *, answered: bool) -> None:
        """Note what became of a request; a decision that Envoy never got is taken back."""
        self._metrics.requests.labels(stream.outcome if answered else "abandoned").inc()
        decision = stream.decision
        if stream.held is not None and not answered:
            self._room.leave(stream.held)
            decision = stream.held.decision
        if decision is None:
            return
        if answered:
            self._metrics.predicted_ttft.observe(decision.predicted_ttft)
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("%s", decision.explain())
        else:
            self._picker.cancel(decision.id, time.monotonic())

    async def _stream_access_logs(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        while (data := await context.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            for entry in completions.read(data):
                known = completions.apply(entry, self._picker, now)
                parked = not known and self._parking is not None and self._parking.park(entry, now)
                result = "applied" if known else "parked" if parked else "dropped"
                self._metrics.log_entries.labels(result).inc()
        return b""


@asynccontextmanager
async def serve_picker(service: PickerService, address: str, largest_body: int) -> AsyncIterator[int]:
    """Serve on `address` (`host:port` or `unix:/path`) inside the context; yields the port.

    `largest_body`: bytes that Envoy may send; gRPC's default of 4 MiB would fail open unseen. Raises
    StartError if the address cannot be listened on.
    """
    # A body may overshoot Envoy's buffer limit by what one read brought.
    largest_message = 2 * largest_body + MESSAGE_OVERHEAD_BYTES
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest_message),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.max_ping_strikes", 0),  # Envoy pings every second: so it notices a frozen picker
        ]
    )
    server.add_generic_rpc_handlers(service.handlers())
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", EXT_PROC_SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(
            f"picker_address {address}: cannot listen: is it taken, or not ours to use?"
        ) from error
    await server.start()
    try:
        yield port
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(STOP_GRACE_SECONDS)
