"""The picker's gRPC face: ext_proc, Envoy's access log, and health, over raw bytes.

grpc.aio on uvloop with `context.read()` and `write()` and handlers without (de)serializers cost the least
per request of what was measured (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc import completions
from ext_proc.stream import PickStream
from ext_proc.waiting import DISPATCH_SECONDS
from fleet.errors import StartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ext_proc.gateway import Gateways
    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from ext_proc.steer import Steerer
    from ext_proc.waiting import Held, WaitingRoom

_log = logging.getLogger(__name__)

EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH_SERVICES = ("", EXT_PROC_SERVICE, "liveness", "readiness", "inference-extension")
"""Names that health is asked by: Envoy's, and those of the manifests of gateways' endpoint pickers."""

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
        gateways: Gateways | None = None,
    ) -> None:
        """Without `gateways` all exchanges are those of our own Envoys."""
        self._steerer = steerer
        self._picker = picker
        self._room = room
        self._metrics = metrics
        self._gateways = gateways
        self._someone_waits = asyncio.Event()

    def handlers(self, cluster: str = "") -> tuple[grpc.GenericRpcHandler, ...]:
        """ext_proc and the access log, for a gRPC server; of gateways that mean that `cluster`, if not ''."""
        serve = partial(self._process, cluster=cluster) if cluster else self._process
        process: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(serve)
        log: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(self._stream_access_logs)
        return (
            grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": process}),
            grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, {"StreamAccessLogs": log}),
        )

    async def _process(
        self, _: object, context: grpc.aio.ServicerContext[Any, Any], cluster: str = ""
    ) -> None:
        data = await context.read()
        if self._gateways is not None and isinstance(data, bytes) and self._gateways.is_gateway(data):
            await self._gateways.process(data, context, cluster, self._turn_of)
        else:
            await self._process_ours(data, context)

    async def _process_ours(self, data: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        stream = PickStream(self._steerer, self._room.longest)
        answered = False
        try:
            while data is not grpc.aio.EOF:
                answer = stream.receive(data, time.monotonic())
                if answer is not None:
                    await context.write(answer)
                if stream.held is not None:
                    await self._turn_of(stream.held)
                    await context.write(stream.go(stream.held))
                if stream.done:
                    break
                data = await context.read()
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
        self._someone_waits.set()
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
                self._metrics.log_entries.labels("applied" if known else "dropped").inc()
        return b""


@asynccontextmanager
async def serve_picker(
    service: PickerService,
    address: str,
    largest_body: int,
    *,
    health_address: str | None = None,
    pool_addresses: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[int]:
    """Serve on `address` (`host:port` or `unix:/path`) inside the context; yields the port.

    `largest_body`: bytes that Envoy may send; gRPC's default of 4 MiB would fail open unseen. Health checks
    are also answered on `health_address`; on each of `pool_addresses` gateways ask for one cluster. Raises
    StartError if an address cannot be listened on.
    """
    checks = health.aio.HealthServicer()
    for name in HEALTH_SERVICES:
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    async with AsyncExitStack() as stack:
        main = _server(service.handlers(), checks, largest_body)
        port = _listen(main, "picker_address", address)
        servers = [main]
        if health_address is not None:
            servers.append(_server((), checks, largest_body))
            _listen(servers[-1], "endpoint_picker.health_address", health_address)
        for pool_address, cluster in pool_addresses.items():
            servers.append(_server(service.handlers(cluster), checks, largest_body))
            _listen(servers[-1], "endpoint_picker.pool_addresses", pool_address)
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop, STOP_GRACE_SECONDS)
        stack.push_async_callback(checks.enter_graceful_shutdown)
        yield port


def _server(
    handlers: tuple[grpc.GenericRpcHandler, ...], checks: health.aio.HealthServicer, largest_body: int
) -> grpc.aio.Server:
    # A body may overshoot Envoy's buffer limit by what one read brought.
    largest_message = 2 * largest_body + MESSAGE_OVERHEAD_BYTES
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", largest_message),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.max_ping_strikes", 0),  # Envoy pings every second: so it notices a frozen picker
        ]
    )
    server.add_generic_rpc_handlers(handlers)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server


def _listen(server: grpc.aio.Server, field: str, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"{field} {address}: cannot listen: is it taken, or not ours to use?") from error
