"""The picker's gRPC face: ext_proc, Envoy's access log, and health, over raw bytes.

grpc.aio on uvloop with `context.read()` and `write()` and handlers without (de)serializers cost the least
per request of what was measured (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
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
    from collections.abc import AsyncIterator, Mapping, Sequence

    from ext_proc.admission.refusal import Refusal
    from ext_proc.gateway import Gateways
    from ext_proc.health_service import HealthService
    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from ext_proc.replication.parking import Parking
    from ext_proc.steer import Steerer
    from ext_proc.waiting import Held, WaitingRoom
    from ext_proc.watchdog import UnderWay
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
        gateways: Gateways | None = None,
        parking: Parking | None = None,
    ) -> None:
        """`room` is in front of `picker`; `watchdog` and `reporter` are told of every pick. `tenants` are
        counted by their names, all others together. Without `gateways` all exchanges are those of our own
        Envoys. `parking` keeps log entries about picks that another replica may have made."""
        self._parking = parking
        self._steerer = steerer
        self._picker = picker
        self._room = room
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(PICK_SECONDS, room.longest)
        self._reporter = reporter or Reporter(metrics)
        picker.report_to(self._reporter.over)
        self._tenants = tenants
        self._gateways = gateways
        self._someone_waits = asyncio.Event()

    def handlers(self, cluster: str = "") -> tuple[grpc.GenericRpcHandler, ...]:
        """ext_proc and the access log, for a gRPC server; of gateways that mean that `cluster`, if not ''."""
        serve = partial(self._process, cluster=cluster) if cluster else self._process
        return generic_handlers(serve, self._stream_access_logs)

    async def _process(
        self, _: object, context: grpc.aio.ServicerContext[Any, Any], cluster: str = ""
    ) -> None:
        data = await context.read()
        if self._gateways is not None and isinstance(data, bytes) and self._gateways.is_gateway(data):
            await self._gateways.process(data, context, cluster, self)
        else:
            await self._process_ours(data, context)

    async def _process_ours(self, data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        stream = PickStream(self._steerer, self._room.longest)
        picks, began = self._watchdog.picks, time.monotonic()
        answered = False
        try:
            while data is not grpc.aio.EOF:
                now = time.monotonic()
                picks.began(stream, now)
                answer = stream.receive(data, now)
                if answer is not None:
                    await context.write(answer)
                picks.ended(stream, time.monotonic())
                if stream.held is not None:
                    await self.turn_of(stream.held)
                    picks.began(stream, time.monotonic())
                    await context.write(stream.go(stream.held))
                    picks.ended(stream, time.monotonic())
                if stream.done:
                    break
                data = await context.read()
            answered = True
        finally:
            self._watchdog.dropped(stream)
            # Envoy ends the exchange as soon as it has the last reply, which may be before its write returns.
            self._count(stream, began, answered=answered or stream.done)

    async def dispatch(self) -> None:
        """Let those go who wait and whose turn has come, for ever."""
        while True:
            await self._someone_waits.wait()
            self._someone_waits.clear()
            while len(self._room):
                await asyncio.sleep(DISPATCH_SECONDS)
                self._room.dispatch(time.monotonic())

    @property
    def picks(self) -> UnderWay:
        """Where the watchdog hears of what is under way."""
        return self._watchdog.picks

    async def turn_of(self, held: Held) -> None:
        """Wait until the request that is held is settled."""
        self._someone_waits.set()
        if not held.settled:
            turn = asyncio.Event()
            held.wake = turn.set
            self._watchdog.holds.began(held, held.arrived)
            with self._metrics.held.track_inprogress():
                await turn.wait()
            self._watchdog.holds.ended(held, time.monotonic())
        self._metrics.held_seconds.observe(time.monotonic() - held.arrived)

    def _count(self, stream: PickStream, began: float, *, answered: bool) -> None:
        """Note what became of a request; a decision that was never sent is taken back."""
        self._reporter.shown(stream, began, answered=answered)
        if stream.refused is not None:
            self.count_refused(stream.refused)
        if answered:
            self._reporter.placed(stream)
            return
        decision = stream.decision
        if stream.held is not None:
            self._room.leave(stream.held)
            self._watchdog.dropped(stream.held)
            decision = stream.held.decision
        if decision is not None:
            self._picker.cancel(decision.id, time.monotonic())

    def count_refused(self, refused: Refusal) -> None:
        """A request was turned away."""
        self._metrics.shed.labels(refused.model, refused.reason, str(refused.level)).inc()
        tenant = refused.tenant if refused.tenant in self._tenants else "other"
        self._metrics.shed_by_tenant.labels(tenant).inc()

    async def _stream_access_logs(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        while (data := await context.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            for entry in completions.read(data):
                known = completions.apply(entry, self._picker, now)
                parked = not known and self._parking is not None and self._parking.park(entry, now)
                result = "applied" if known else "parked" if parked else "dropped"
                self._metrics.log_entries_by_result[result].inc()
        return b""


def generic_handlers(process: Any, log: Any) -> tuple[grpc.GenericRpcHandler, ...]:
    """ext_proc and the access log for a gRPC server, from what reads and writes raw bytes."""
    processing: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(process)
    logging_: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(log)
    return (
        grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": processing}),
        grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {"StreamAccessLogs": logging_}),
    )


def _server(
    handlers: Sequence[grpc.GenericRpcHandler],
    checks: HealthService,
    largest_body: int,
    transport: Transport,
) -> grpc.aio.Server:
    # A body may overshoot Envoy's buffer limit by what one read brought.
    largest_message = 2 * largest_body + MESSAGE_OVERHEAD_BYTES
    if transport == "http2":
        server = cast(grpc.aio.Server, Http2Server(largest_message))  # it has the part of its face used here
    else:
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", largest_message),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.max_ping_strikes", 0),  # Envoy pings each second: so it notices a frozen picker
            ]
        )
    server.add_generic_rpc_handlers(tuple(handlers))
    checks.add_to(server)
    return server


class Service(Protocol):
    """What can be served: `PickerService`, or what stands in for it in a benchmark."""

    def handlers(self, cluster: str = "") -> Sequence[grpc.GenericRpcHandler]:
        """ext_proc and the access log, for a gRPC server; of gateways that mean that `cluster`, if not ''."""


@asynccontextmanager
async def serve_picker(
    service: Service,
    address: str,
    largest_body: int,
    health: HealthService | None = None,
    *,
    health_address: str | None = None,
    pool_addresses: Mapping[str, str] = MappingProxyType({}),
    transport: Transport = "grpc",
) -> AsyncIterator[int]:
    """Serve on `address` (`host:port` or `unix:/path`) inside the context; yields the port.

    `health` answers health checks, which are told "serving" at all times where there is none, and also on
    `health_address`. `largest_body`: bytes that Envoy may send; gRPC's default of 4 MiB would fail open
    unseen. On each of `pool_addresses` gateways ask for one cluster. Raises StartError if an address cannot
    be listened on.
    """
    checks = health or always_serving()
    await checks.start()
    async with AsyncExitStack() as stack:
        main = _server(service.handlers(), checks, largest_body, transport)
        port = _listen(main, "picker_address", address)
        servers = [main]
        if health_address is not None:
            servers.append(_server((), checks, largest_body, transport))
            _listen(servers[-1], "endpoint_picker.health_address", health_address)
        for pool_address, cluster in pool_addresses.items():
            servers.append(_server(service.handlers(cluster), checks, largest_body, transport))
            _listen(servers[-1], "endpoint_picker.pool_addresses", pool_address)
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop, STOP_GRACE_SECONDS)
        stack.push_async_callback(checks.stop)
        yield port


def _listen(server: grpc.aio.Server, field: str, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"{field} {address}: cannot listen: is it taken, or not ours to use?") from error
