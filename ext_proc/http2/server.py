"""`Http2Server`: asyncio around the connection, with the face of `grpc.aio.server()`."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import grpc

from ext_proc.http2.connection import Connection
from fleet import address as addresses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

    from ext_proc.http2.hpack import Headers
    from ext_proc.http2.stream import Stream

_log = logging.getLogger(__name__)

_BACKLOG = 1024  # connections that wait to be accepted


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class _AbortedError(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Call:
    """What a handler gets as its context, and as the iterator of requests."""

    def __init__(self, peer: _Peer, stream: Stream, headers: Headers) -> None:
        self._peer = peer
        self._stream = stream
        self._headers = headers
        self._waiter: asyncio.Future[None] | None = None
        self.serializer: Any = None
        self.task: asyncio.Task[None] | None = None
        stream.on_news = self._on_news

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF when the client sends no more."""
        stream = self._stream
        while not stream.messages:
            if stream.ended or stream.gone:
                return grpc.aio.EOF
            self._waiter = self._peer.loop.create_future()
            await self._waiter
        return self._peer.connection.take(stream)

    async def write(self, message: Any) -> None:
        """Send one message."""
        data = message if self.serializer is None else self.serializer(message)
        self._peer.connection.write(self._stream, data)
        self._peer.flush_soon()

    async def abort(self, code: grpc.StatusCode, details: str = "", _metadata: object = ()) -> NoReturn:
        """End the call with a status."""
        raise _AbortedError(code, details)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The call's headers."""
        return tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in self._headers)

    def peer(self) -> str:
        """Who calls, for logs."""
        return self._peer.name

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Every message."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def finish(self, status: int = 0, details: str = "") -> None:
        """End the call."""
        self._peer.connection.finish(self._stream, status, quote(details, safe=" ,.:;()").encode())
        self._peer.flush_soon()

    def _on_news(self) -> None:
        if self._stream.gone and self.task is not None and not self.task.done():
            self.task.cancel()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Http2Server) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(self._on_call, server.largest_message)
        self.name = "unknown"
        self._server = server
        self._flushing = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.name = str(transport.get_extra_info("peername") or "a local socket")
        self._server.peers.add(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)
        self.flush_soon()  # after the handlers that were just woken, so that one write carries all

    def connection_lost(self, _error: Exception | None) -> None:
        self.connection.close()
        self._server.peers.discard(self)
        self._transport = None

    def flush_soon(self) -> None:
        """Send what there is, once the handlers that are ready have run."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is None:
            return
        if self.connection.out:
            data, self.connection.out = self.connection.out, bytearray()
            self._transport.write(data)
        if self.connection.closed:
            self._transport.close()

    def hang_up(self) -> None:
        """End every call and the connection."""
        self.connection.close()
        self._flush()

    def _on_call(self, stream: Stream, headers: Headers) -> None:
        call = Call(self, stream, headers)
        self._server.run(self._serve(call, headers), call)

    async def _serve(self, call: Call, headers: Headers) -> None:
        """Run a call's handler to its end, whatever that is."""
        try:
            method = self._server.method(headers)
            if method is None:
                call.finish(grpc.StatusCode.UNIMPLEMENTED.value[0], "no such method")
                return
            await _answer(method, call)
            call.finish()
        except _AbortedError as error:
            call.finish(error.code.value[0], error.details)
        except asyncio.CancelledError:
            call.finish(grpc.StatusCode.CANCELLED.value[0])
            raise
        except Exception:  # noqa: BLE001 - a handler's fault ends its call and nothing else
            _log.exception("a handler failed")
            call.finish(grpc.StatusCode.UNKNOWN.value[0], "the handler failed")


async def _answer(method: Any, call: Call) -> None:
    request: Any = call
    if not method.request_streaming:
        request = await call.read()
        if request is grpc.aio.EOF:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "no request")
        if method.request_deserializer is not None:
            request = method.request_deserializer(request)
    call.serializer = method.response_serializer
    if method.response_streaming:
        behaviour = method.stream_stream if method.request_streaming else method.unary_stream
        await behaviour(request, call)
    else:
        behaviour = method.stream_unary if method.request_streaming else method.unary_unary
        await call.write(await behaviour(request, call))


class Http2Server:
    """A gRPC server for handlers that are coroutines reading and writing through their context."""

    def __init__(self, largest_message: int) -> None:
        """Requests' messages may have `largest_message` bytes."""
        self.largest_message = largest_message
        self.peers: set[_Peer] = set()
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._methods: dict[Headers, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve these, too."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Nothing: what generated code registers here, it also adds as generic handlers."""

    def add_insecure_port(self, address: str) -> int:
        """Listen on `host:port` or `unix:/path` from `start` on; the port. Raises RuntimeError."""
        path = addresses.unix_path(address)
        try:
            made = _tcp_socket(address) if path is None else _unix_socket(path)
        except OSError as error:
            raise RuntimeError(f"cannot listen on {address}: {error.strerror}") from error
        self._sockets.append(made)
        return int(made.getsockname()[1]) if path is None else 1

    async def start(self) -> None:
        """Serve."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            create = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(lambda: _Peer(self), sock=listening, backlog=_BACKLOG))

    def close(self) -> None:
        """Give the addresses back; for a server that does not start."""
        for listening in self._sockets:
            listening.close()

    async def stop(self, grace: float | None) -> None:
        """Take no new calls, give those that run `grace` seconds, and end the others."""
        for server in self._servers:
            server.close()
        for peer in self.peers:
            peer.connection.refuse()
            peer.flush_soon()
        if self._tasks and grace:
            await asyncio.wait(self._tasks, timeout=grace)
        left = list(self._tasks)
        for peer in list(self.peers):
            peer.hang_up()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, None], call: Call) -> None:
        """Run a call's handler; it is waited for in `stop`."""
        task = asyncio.get_running_loop().create_task(work)
        call.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def method(self, headers: Headers) -> Any:
        """Who answers a call with these headers; None if nobody does."""
        if headers not in self._methods:
            path = dict(headers).get(b":path", b"").decode("latin-1")
            details = _Details(path)
            found = (handler.service(details) for handler in self._handlers)
            if len(self._methods) > 256:
                self._methods.clear()
            self._methods[headers] = next((method for method in found if method is not None), None)
        return self._methods[headers]


def _tcp_socket(address: str) -> socket.socket:
    host, port = addresses.split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _unix_socket(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        try:
            made.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_served(path):
                raise
            os.unlink(path)  # a predecessor's, which could not remove it  # noqa: PTH108
            made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(path) == 0
