"""The server against a real gRPC client; tests/ext_proc/test_server.py serves the whole picker by it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from ext_proc.http2.server import Http2Server
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LARGEST = 8 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Handlers:
    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0

    async def echo(self, _: object, context: Any) -> None:
        self.running += 1
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                await context.write(data)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def joined(self, requests: Any, _: object) -> bytes:
        return b"".join([message async for message in requests])

    async def length(self, request: bytes, _: object) -> bytes:
        return b"%d" % len(request)

    async def fails(self, *_: object) -> bytes:
        raise ValueError("a secret")

    async def aborts(self, _: object, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "grün: 100 %")
        return b""

    async def metadata(self, _: object, context: Any) -> bytes:
        return str(dict(context.invocation_metadata())["x-mine"]).encode()

    def all(self) -> grpc.GenericRpcHandler:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Echo": grpc.stream_stream_rpc_method_handler(self.echo),
            "Joined": grpc.stream_unary_rpc_method_handler(self.joined),
            "Length": grpc.unary_unary_rpc_method_handler(self.length),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "Aborts": grpc.unary_unary_rpc_method_handler(self.aborts),
            "Metadata": grpc.unary_unary_rpc_method_handler(self.metadata),
        }
        return grpc.method_handlers_generic_handler("test", methods)


@pytest.fixture(autouse=True)
def _clients_are_gone() -> Iterator[None]:
    """gRPC's client takes a lock when it is collected; that must not happen inside our server's code."""
    yield
    gc.collect()


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def channel(handlers: Handlers) -> AsyncIterator[grpc.aio.Channel]:
    server = Http2Server(LARGEST)
    server.add_generic_rpc_handlers((handlers.all(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as made:
        yield made
    await server.stop(0.1)


def unary(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(f"/test/{method}")


async def test_answers_calls_of_every_shape(channel: grpc.aio.Channel) -> None:
    assert await unary(channel, "Length")(b"four") == b"4"
    parts: Any = [b"one", b"", b"two"]
    joined: Any = channel.stream_unary("/test/Joined")(iter(parts))
    assert await joined == b"onetwo"
    call: Any = channel.stream_stream("/test/Echo")()
    for part in parts:
        await call.write(part)
        assert await call.read() == part
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_carries_large_messages_both_ways_through_the_clients_windows(
    channel: grpc.aio.Channel,
) -> None:
    call: Any = channel.stream_stream("/test/Echo")()
    for size in (LARGEST, 3 << 20, LARGEST):
        await call.write(b"x" * size)
        assert len(await call.read()) == size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_answers_many_calls_at_once_each_its_own(channel: grpc.aio.Channel) -> None:
    length = unary(channel, "Length")
    answers = await asyncio.gather(*(length(b"x" * n) for n in range(300)))
    assert answers == [b"%d" % n for n in range(300)]


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("Aborts", grpc.StatusCode.NOT_FOUND, "grün: 100 %"),
        ("Fails", grpc.StatusCode.UNKNOWN, "the handler failed"),
        ("Absent", grpc.StatusCode.UNIMPLEMENTED, "no such method"),
    ],
)
async def test_tells_why_a_call_failed_and_goes_on(
    channel: grpc.aio.Channel, method: str, code: grpc.StatusCode, details: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, method)(b"")
    assert (caught.value.code(), caught.value.details()) == (code, details)
    assert await unary(channel, "Length")(b"four") == b"4"


async def test_refuses_a_message_that_is_too_large(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "Length")(b"x" * (LARGEST + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_shows_handlers_the_calls_headers(channel: grpc.aio.Channel) -> None:
    assert await unary(channel, "Metadata")(b"", metadata=(("x-mine", "mine"),)) == b"mine"


async def test_cancels_a_handler_whose_client_leaves(channel: grpc.aio.Channel, handlers: Handlers) -> None:
    call: Any = channel.stream_stream("/test/Echo")()
    await call.write(b"x")
    await call.read()
    assert handlers.running == 1
    call.cancel()
    await until(lambda: handlers.cancelled == 1)
    assert handlers.running == 0


async def test_ends_what_still_runs_after_its_grace(handlers: Handlers) -> None:
    server = Http2Server(LARGEST)
    server.add_generic_rpc_handlers((handlers.all(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream("/test/Echo")()
        await call.write(b"x")
        await call.read()
        await server.stop(0.05)
        assert handlers.cancelled == 1
        assert await call.code() is not grpc.StatusCode.OK
        with pytest.raises(grpc.aio.AioRpcError):
            await unary(channel, "Length")(b"four")


async def test_listens_where_a_dead_predecessor_left_its_socket(tmp_path: Path, handlers: Handlers) -> None:
    address = f"unix:{tmp_path}/p.sock"

    def bound_twice() -> Http2Server:
        dead = Http2Server(LARGEST)
        dead.add_insecure_port(address)
        dead.close()
        server = Http2Server(LARGEST)
        server.add_insecure_port(address)
        return server

    server = await asyncio.to_thread(bound_twice)
    server.add_generic_rpc_handlers((handlers.all(),))
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        assert await unary(channel, "Length")(b"four") == b"4"
        with pytest.raises(RuntimeError, match="cannot listen"):
            Http2Server(LARGEST).add_insecure_port(address)
    await server.stop(None)
