"""Emulated endpoints on real sockets: every emulated pool of a settings file, in one process.

Streams send their response headers before prefill and the first chunk after it; other answers send both at
the end. A client that goes away takes its request out of the engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from aiohttp import web

from fleet import address as addresses
from fleet.errors import ConfigError, StartError
from fleet.settings import pool_field
from sim.apis import openai
from sim.apis.api import ApiError, Incoming, blocks
from sim.apis.routes import APIS, READY
from sim.backend import Backend
from sim.capacity import Capacity, capacity
from sim.engine import Engine, RequestTooLargeError
from sim.exposition import CONTENT_TYPE, exposition
from sim.grpc_server import KserveService, serving_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fleet.settings import Settings
    from sim.apis.api import Api, Call

MAX_BODY_BYTES = 64 << 20
"""Longest request body that is read; more is answered with 413."""

_SHUTDOWN_SECONDS = 0.5
"""How long answers in progress may go on once the process was told to end."""

_LOG = logging.getLogger(__name__)

_STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class EmulatedEndpoint:
    """What one address serves: an engine behind the HTTP interfaces of Triton and trtllm-serve."""

    def __init__(self, model: str, capacity: Capacity) -> None:
        """`model`: the name that clients use."""
        self.model = model
        self._gpu_bytes = capacity.gpu_bytes
        self.backend = Backend(Engine(capacity))

    def application(self) -> web.Application:
        """The routes of this endpoint."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.add_routes([web.post(path, self._answering(api)) for path, api in APIS.items()])
        application.add_routes([web.get(path, self._healthy) for path in READY])
        application.add_routes([web.get("/v1/models", self._models), web.get("/metrics", self._metrics)])
        return application

    def _answering(self, api: Api) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                headers = {name.lower(): value for name, value in request.headers.items()}
                named = request.match_info.get("model", "")
                incoming = Incoming(await request.read(), self.model, headers, named)
                return await self._run(request, api, api.read(incoming))
            except ApiError as error:
                return _json_response(api.error(error), error.status)
            except RequestTooLargeError as error:
                refusal = ApiError(400, str(error), None, "context_length_exceeded")
                return _json_response(api.error(refusal), 400)
            except web.HTTPRequestEntityTooLarge:
                return _json_response(
                    api.error(ApiError(413, f"the body exceeds {MAX_BODY_BYTES} bytes")), 413
                )

        return answer

    async def _run(self, request: web.Request, api: Api, call: Call) -> web.StreamResponse:
        answer = api.answer(call, uuid4().hex, int(time.time()))
        ticket = self.backend.submit(call.prompt.tokens, call.output_tokens, blocks(call), stream=call.stream)
        try:
            if not call.stream:
                await ticket.more()
                body, headers = answer.body(ticket.cached_tokens)
                return web.Response(body=body, headers=headers)
            response = web.StreamResponse(headers=_STREAM_HEADERS)
            await response.prepare(request)  # aiohttp writes a StreamResponse's headers at once
            sent = 0
            while sent < call.output_tokens:
                await ticket.more()
                chunk = answer.chunk(sent, ticket.emitted)
                sent = ticket.emitted
                await response.write(chunk + answer.end(ticket.cached_tokens) if ticket.finished else chunk)
            return response
        finally:
            self.backend.cancel(ticket)

    async def _models(self, _: web.Request) -> web.Response:
        return _json_response(openai.models(self.model))

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(self.backend.gauges(), time.time(), self._gpu_bytes)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


def _json_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def emulated_endpoints(settings: Settings, source: str) -> dict[str, EmulatedEndpoint]:
    """Every address of every emulated pool. Raises ConfigError; `source` names the settings there."""
    found: dict[str, EmulatedEndpoint] = {}
    for model, version, pool in settings.pools():
        if pool.emulated is None or not pool.endpoints:
            continue
        size = capacity(model, pool)
        if not size.kv_blocks:
            field = pool_field(model, version, pool, "tensor_parallel")
            need = f"expected more GPUs: {model.parameters_billion:g}B weights leave no room for a KV cache"
            raise ConfigError(source, field, pool.tensor_parallel, need)
        found |= {address: EmulatedEndpoint(model.name, size) for address in pool.endpoints}
    if not found:
        raise ConfigError(source, "models", None, "expected a pool with both `emulated` and `endpoints`")
    return found


@asynccontextmanager
async def serving(endpoints: dict[str, EmulatedEndpoint]) -> AsyncIterator[None]:
    """Listen on every address while the context is open. Raises StartError where one cannot be had."""
    runners: list[web.AppRunner] = []
    try:
        for address, endpoint in endpoints.items():
            runner = web.AppRunner(
                endpoint.application(),
                access_log=None,
                handler_cancellation=True,  # a client that leaves ends its handler, and so its request
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            runners.append(runner)
            await runner.setup()
            await _listen(runner, address)
        yield
    finally:
        async with asyncio.TaskGroup() as group:
            for runner in runners:
                group.create_task(runner.cleanup())


def grpc_services(settings: Settings, endpoints: dict[str, EmulatedEndpoint]) -> dict[str, KserveService]:
    """The gRPC address of each of these endpoints that has one, and what is served there."""
    known = settings.fleet().endpoints
    return {
        known[address].grpc_address: KserveService(endpoint.model, endpoint.backend)
        for address, endpoint in endpoints.items()
        if known[address].grpc_address
    }


async def _listen(runner: web.AppRunner, address: str) -> None:
    host, port = addresses.split(address)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise StartError(f"{address}: cannot listen: {error.strerror or error}") from error


async def run(settings: Settings, source: str, stop: asyncio.Event) -> None:
    """Serve every emulated endpoint of the settings until `stop` is set. Raises KvpilotError."""
    endpoints = emulated_endpoints(settings, source)
    async with serving(endpoints), serving_grpc(grpc_services(settings, endpoints)):
        _LOG.info("emulating %d endpoints: %s", len(endpoints), ", ".join(endpoints))
        await stop.wait()
