"""ADS over gRPC: bytes in, `Subscription`, bytes out. One task reads a stream and one writes it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fleet.errors import StartError
from xds_server.snapshot import short_type
from xds_server.subscription import ProtocolError, Request, Response, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xds_server.cache import SnapshotCache
    from xds_server.metrics import XdsMetrics

_LOG = logging.getLogger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"

STOP_GRACE_SECONDS = 0.05
"""Streams last for ever, so there is nothing to wait for beyond a write under way."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port already taken is an error, not shared in silence
    ("grpc.max_receive_message_length", 16 << 20),  # requests list every name that a client watches
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),  # a client that vanished without a FIN is noticed
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients may check us as often
    ("grpc.keepalive_permit_without_calls", 1),
)

_LONGEST_ERROR = 500  # characters of a client's error text that are logged


class _Client:
    """One open stream."""

    def __init__(
        self,
        context: grpc.aio.ServicerContext[bytes, bytes],
        cache: SnapshotCache,
        metrics: XdsMetrics,
    ) -> None:
        self._context = context
        self._cache = cache
        self._metrics = metrics
        self._subscription = Subscription()
        self._wake = asyncio.Event()
        self._node = context.peer()

    async def serve(self) -> str:
        """Until the client leaves. Returns why it was turned away, or an empty text."""
        with self._cache.watching(self._wake):
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write())
                refusal = await self._read()
                writer.cancel()
        return refusal

    async def _read(self) -> str:
        while True:
            data: object = await self._context.read()
            if not isinstance(data, bytes):  # grpc.aio.EOF: the client is gone
                return ""
            try:
                self._receive(discovery_pb2.DiscoveryRequest.FromString(data))
            except (DecodeError, ProtocolError) as error:
                _LOG.warning("%s sent no usable request: %s", self._node, error)
                return str(error)
            self._wake.set()

    def _receive(self, message: discovery_pb2.DiscoveryRequest) -> None:
        if message.node.id:  # only the first request must carry it
            self._node = message.node.id
        nack = self._subscription.receive(
            Request(
                type_url=message.type_url,
                nonce=message.response_nonce,
                names=tuple(message.resource_names),
                error=_error_text(message),
            )
        )
        if nack is not None:
            kind = short_type(nack.type_url)
            self._metrics.nacks.labels(kind).inc()
            _LOG.error("%s refused %s version %s: %s", self._node, kind, nack.version, nack.error)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._cache.snapshot is None:
                continue
            for response in self._subscription.due(self._cache.snapshot):
                await self._context.write(_encode(response))
                self._metrics.pushes.labels(short_type(response.type_url)).inc()


def _error_text(message: discovery_pb2.DiscoveryRequest) -> str:
    if not message.HasField("error_detail"):
        return ""
    return message.error_detail.message[:_LONGEST_ERROR] or "no reason given"


def _encode(response: Response) -> bytes:
    message = discovery_pb2.DiscoveryResponse(
        version_info=response.version, type_url=response.type_url, nonce=response.nonce
    )
    for body in response.bodies.values():
        message.resources.add(type_url=response.type_url, value=body)
    data: bytes = message.SerializeToString()
    return data


@asynccontextmanager
async def serve_ads(cache: SnapshotCache, metrics: XdsMetrics, address: str) -> AsyncIterator[int]:
    """Serve ADS and gRPC health on `address` (`host:port` or `unix:/path`) inside the context.

    Yields the port; raises StartError if the address cannot be listened on.
    """

    async def stream(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        client = _Client(context, cache, metrics)
        with metrics.streams.track_inprogress():
            refusal = await client.serve()
        if refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)

    server = grpc.aio.server(options=_OPTIONS)
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(stream)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in ("", SERVICE):
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"xds_address {address}: cannot listen: is it taken, or not ours to use?") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(STOP_GRACE_SECONDS)
