"""The picker's gRPC face: ext_proc, Envoy's access log, and health, over raw bytes.

grpc.aio with `context.read()` and `write()` and handlers without (de)serializers cost the least per
request of what was measured (docs/performance.md).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc import completions
from ext_proc.stream import PickStream
from fleet.errors import StartError

if TYPE_CHECKING:
    from ext_proc.metrics import Metrics
    from ext_proc.picker import Picker
    from ext_proc.steer import Steerer

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"

MESSAGE_OVERHEAD_BYTES = 1 << 20
"""Room for headers and framing above the largest body that Envoy buffers."""


class PickerServer:
    """Serves one picker on one address."""

    def __init__(self, steerer: Steerer, picker: Picker, metrics: Metrics, largest_body: int) -> None:
        """`largest_body`: bytes that Envoy may send; gRPC's default of 4 MiB would fail open unseen."""
        self._steerer = steerer
        self._picker = picker
        self._metrics = metrics
        self._server = grpc.aio.server(
            options=[
                # A body may overshoot the buffer limit by what one read brought.
                ("grpc.max_receive_message_length", 2 * largest_body + MESSAGE_OVERHEAD_BYTES),
                ("grpc.so_reuseport", 0),
            ]
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers(
            (
                _handlers(EXT_PROC, "Process", self._process),
                _handlers(ACCESS_LOG, "StreamAccessLogs", self._stream_access_logs, replies=False),
            )
        )

    async def start(self, address: str) -> int:
        """Listen on `host:port` or `unix:/path`; the port. Raises StartError if it cannot."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartError(f"picker_address {address}: cannot listen there: {error}") from error
        await self._server.start()
        for service in ("", EXT_PROC):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return int(port)

    async def wait(self) -> None:
        """Until stopped."""
        await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """Tell health checkers, refuse new streams, and wait at most `grace` seconds for open ones."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def _process(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        stream = PickStream(self._steerer)
        while not stream.done:
            data = await context.read()
            if data is grpc.aio.EOF:
                break
            answer = stream.receive(data, time.monotonic())
            if answer is not None:
                await context.write(answer)
        self._metrics.requests.labels(stream.outcome).inc()

    async def _stream_access_logs(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        while (data := await context.read()) is not grpc.aio.EOF:
            now = time.monotonic()
            for entry in completions.read(data):
                known = completions.apply(entry, self._picker, now)
                self._metrics.log_entries.labels("applied" if known else "dropped").inc()
        return b""


def _handlers(service: str, method: str, handler: Any, *, replies: bool = True) -> grpc.GenericRpcHandler:
    """One streaming method on raw bytes: no (de)serializer."""
    make = grpc.stream_stream_rpc_method_handler if replies else grpc.stream_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(service, {method: make(handler)})
