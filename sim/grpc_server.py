"""Emulated endpoints' gRPC face: KServe's service as Triton serves it, over raw bytes.

The model is decoupled: ModelStreamInfer answers a request in as many messages as it likes, and requests of
one stream run side by side. ModelInfer answers in one. A client that goes away takes its requests out of
the engine.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from fleet.errors import StartError
from fleet.names import KSERVE_SERVICE
from sim import kserve
from sim import kserve_pb2 as pb
from sim.engine import RequestTooLargeError
from sim.kserve import Answer, KserveError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from sim.backend import Backend

MAX_MESSAGE_BYTES = 64 << 20
"""Longest request that is read, as over HTTP."""

_SHUTDOWN_SECONDS = 0.5
"""How long answers in progress may go on once the process was told to end."""

_EXTENSIONS = ("classification", "model_configuration", "parameters")

_Context = grpc.aio.ServicerContext[Any, Any]


class KserveService:
    """What one gRPC address serves: an engine that the HTTP address serves, too."""

    def __init__(self, model: str, backend: Backend) -> None:
        """`model`: the name that clients use."""
        self._model = model
        self._backend = backend

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for a gRPC server."""
        unary = grpc.unary_unary_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ServerLive": unary(_always(pb.ServerLiveResponse(live=True))),
            "ServerReady": unary(_always(pb.ServerReadyResponse(ready=True))),
            "ServerMetadata": unary(
                _always(pb.ServerMetadataResponse(name="triton", version="emulated", extensions=_EXTENSIONS))
            ),
            "ModelReady": unary(self._of_model(lambda _: pb.ModelReadyResponse(ready=True))),
            "ModelMetadata": unary(self._of_model(kserve.metadata)),
            "ModelConfig": unary(
                self._of_model(lambda model: pb.ModelConfigResponse(config=kserve.config(model)))
            ),
            "ModelInfer": unary(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        return grpc.method_handlers_generic_handler(KSERVE_SERVICE, handlers)

    def _of_model(self, answer: Callable[[str], Message]) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        async def answered(data: bytes, context: _Context) -> bytes:
            name = pb.ModelRequest.FromString(data).name
            if name != self._model:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: '{name}'")
            return answer(name).SerializeToString()

        return answered

    async def _infer(self, data: bytes, context: _Context) -> bytes:
        parts: list[pb.ModelInferResponse] = []

        async def keep(part: pb.ModelInferResponse) -> None:
            parts.append(part)

        try:
            await self._answer(data, keep, whole=True)
        except KserveError as error:
            await context.abort(grpc.StatusCode[error.status], str(error))
        return parts[0].SerializeToString()

    async def _stream(self, _: object, context: _Context) -> None:
        async with asyncio.TaskGroup() as running:
            while isinstance(data := await context.read(), bytes):
                running.create_task(self._answer_in_stream(data, context))

    async def _answer_in_stream(self, data: bytes, context: _Context) -> None:
        async def send(part: pb.ModelInferResponse) -> None:
            await context.write(pb.ModelStreamInferResponse(infer_response=part).SerializeToString())

        try:
            await self._answer(data, send, whole=False)
        except KserveError as error:
            await context.write(pb.ModelStreamInferResponse(error_message=str(error)).SerializeToString())

    async def _answer(
        self, data: bytes, send: Callable[[pb.ModelInferResponse], Awaitable[None]], *, whole: bool
    ) -> None:
        """Run one request, and `send` its answers as they come; only one if `whole`. Raises KserveError."""
        try:
            call = kserve.parse(pb.ModelInferRequest.FromString(data), self._model)
        except DecodeError as error:
            raise KserveError("INVALID_ARGUMENT", "not a ModelInferRequest") from error
        answer = Answer(call)
        streamed = call.stream and not whole
        try:
            ticket = self._backend.submit(
                call.prompt.tokens, call.output_tokens, answer.blocks, stream=streamed
            )
        except RequestTooLargeError as error:
            raise KserveError("INVALID_ARGUMENT", str(error)) from error
        try:
            sent = 0
            while sent < call.output_tokens:
                await ticket.more()
                last = ticket.finished and not (call.wants_empty_final and not whole)
                part = answer.part(sent, ticket.emitted, ticket.cached_tokens, final=last)
                sent = ticket.emitted
                await send(part)
            if call.wants_empty_final and not whole:
                await send(answer.empty_final(ticket.cached_tokens))
        finally:
            self._backend.cancel(ticket)


@asynccontextmanager
async def serving_grpc(services: Mapping[str, KserveService]) -> AsyncIterator[None]:
    """Listen on every address while the context is open. Raises StartError where one cannot be had."""
    async with AsyncExitStack() as stack:
        for address, service in services.items():
            server = grpc.aio.server(
                options=[
                    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                    ("grpc.so_reuseport", 0),
                ]
            )
            server.add_generic_rpc_handlers((service.handler(),))
            try:
                server.add_insecure_port(address)
            except RuntimeError as error:
                raise StartError(f"{address}: cannot listen: is it taken, or not ours to use?") from error
            await server.start()
            stack.push_async_callback(server.stop, _SHUTDOWN_SECONDS)
        yield


def _always(message: Message) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    data = message.SerializeToString()

    async def answered(_: bytes, __: _Context) -> bytes:
        return data

    return answered
