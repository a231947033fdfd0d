"""The picker's gRPC face: ext_proc, Envoy's access log, and health, over raw bytes.

grpc.aio on uvloop with `context.read()` and `write()` and handlers without (de)serializers cost the least
per request of what was measured (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc

from ext_proc import completions
from ext_proc.health_service import EXT_PROC_SERVICE, always_serving
from ext_proc.http2.server import Http2Server
from ext_proc.reporter import Reporter
from ext_proc.stream import PickStream
from ext_proc.waiting import DISPATCH_SECONDS
from ext_proc.watchdog import Watchdog
from fleet.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ext_proc.admission.refusal import Refusal
    from ext_proc.health_service import HealthService
    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from ext_proc.steer import Steerer
    from ext_proc.waiting import Held, WaitingRoom
    from fleet.settings import Transport

ACCESS_LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"

MESSAGE_OVERHEAD_BYTES = 1 << 20
"""Room for headers and framing above the largest body that Envoy buffers."""

PICK_SECONDS = 1.0
"""A pick takes a millisecond; one that takes so long hangs, even where Envoy would wait for longer."""

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
        watchdog: Watchdog | None = None,
        reporter: Reporter | None = None,
        tenants: frozenset[str] = frozenset(),
    ) -> None:
        """`room` is in front of `picker`; `watchdog` and `reporter` are told of every pick. `tenants` are
        counted by their names, all others together."""
        self._steerer = steerer
        self._picker = picker
        self._room = room
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(PICK_SECONDS, room.longest)
        self._reporter = reporter or Reporter(metrics)
        picker.tell(self._reporter.over)
        self._tenants = tenants
        self._someone_waits = asyncio.Event()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """ext_proc and the access log, for a gRPC server."""
        return generic_handlers(self._process, self._stream_access_logs)

    async def _process(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        stream = PickStream(self._steerer, self._room.longest)
        picks, began = self._watchdog.picks, time.monotonic()
        answered = False
        try:
            while not stream.done:
                data = await context.read()
                if data is grpc.aio.EOF:
                    break
                now = time.monotonic()
                picks.began(stream, now)
                answer = stream.receive(data, now)
                if stream.held is not None:
                    self._someone_waits.set()
                if answer is not None:
                    await context.write(answer)
                picks.ended(stream, time.monotonic())
                if stream.held is not None:
                    await self._turn_of(stream.held)
                    picks.began(stream, time.monotonic())
                    await context.write(stream.go(stream.held))
                    picks.ended(stream, time.monotonic())
            answered = True
        finally:
            self._watchdog.dropped(stream)
            self._count(stream, began, answered=answered)

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
            self._watchdog.holds.began(held, held.arrived)
            with self._metrics.held.track_inprogress():
                await turn.wait()
            self._watchdog.holds.ended(held, time.monotonic())
        self._metrics.held_seconds.observe(time.monotonic() - held.arrived)

    def _count(self, stream: PickStream, began: float, *, answered: bool) -> None:
        """Note what became of a request; a decision that Envoy never got is taken back."""
        self._reporter.shown(stream, began, answered=answered)
        if stream.refused is not None:
            self._count_refused(stream.refused)
        if answered:
            return
        decision = stream.decision
        if stream.held is not None:
            self._room.leave(stream.held)
            self._watchdog.dropped(stream.held)
            decision = stream.held.decision
        if decision is not None:
            self._picker.cancel(decision.id, time.monotonic())

    def _count_refused(self, refused: Refusal) -> None:
        self._metrics.shed.labels(refused.model, refused.reason, str(refused.level)).inc()
        tenant = refused.tenant if refused.tenant in self._tenants else "other"
        self._metrics.shed_by_tenant.labels(tenant).inc()

    async def _stream_access_logs(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        while (data := await context.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            for entry in completions.read(data):
                known = completions.apply(entry, self._picker, now)
                self._metrics.log_entries_by_result["applied" if known else "dropped"].inc()
        return b""


def generic_handlers(process: Any, log: Any) -> tuple[grpc.GenericRpcHandler, ...]:
    """ext_proc and the access log for a gRPC server, from what reads and writes raw bytes."""
    processing: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(process)
    logging_: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(log)
    return (
        grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": processing}),
        grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {"StreamAccessLogs": logging_}),
    )


def _server(transport: Transport, largest_message: int) -> grpc.aio.Server:
    if transport == "http2":
        return cast(grpc.aio.Server, Http2Server(largest_message))  # it has the part of its face used here
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest_message),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.max_ping_strikes", 0),  # Envoy pings every second: so it notices a frozen picker
        ]
    )


class Service(Protocol):
    """What can be served: `PickerService`, or what stands in for it in a benchmark."""

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """ext_proc and the access log, for a gRPC server."""


@asynccontextmanager
async def serve_picker(
    service: Service,
    address: str,
    largest_body: int,
    health: HealthService | None = None,
    transport: Transport = "grpc",
) -> AsyncIterator[int]:
    """Serve on `address` (`host:port` or `unix:/path`) inside the context; yields the port.

    `health` answers health checks, which are told "serving" at all times where there is none. `largest_body`:
    bytes that Envoy may send; gRPC's default of 4 MiB would fail open unseen. Raises StartError if the
    address cannot be listened on.
    """
    # A body may overshoot Envoy's buffer limit by what one read brought.
    largest_message = 2 * largest_body + MESSAGE_OVERHEAD_BYTES
    server = _server(transport, largest_message)
    server.add_generic_rpc_handlers(service.handlers())
    checks = health or always_serving()
    checks.add_to(server)
    await checks.start()
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
        await checks.stop()
        await server.stop(STOP_GRACE_SECONDS)
