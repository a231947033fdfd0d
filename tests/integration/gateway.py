"""A gateway for the tests: Envoy set up as Istio sets it up for an InferencePool, and engines that echo."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from ext_proc.gateway import Gateways
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.pools import Pools
from ext_proc.reporter import Reporter
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from fleet.names import DESTINATION_KEY, LB_NAMESPACE, SERVED_KEY, SUBSET_KEY, SUBSET_NAMESPACE
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings
from kvpilot.mesh.ports import LOOPBACK
from tests.support import TRANSPORT, free_address, free_port, one_pool_settings, until
from tests.xds_server.local_mesh import configured_envoy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 32}}
TYPES = "type.googleapis.com/envoy.extensions"


@dataclass
class EchoEngine:
    """Tells the digest of what it got; streams three events, slowly, where that is asked for."""

    address: str = field(default_factory=free_address)
    requests: int = 0
    runner: web.AppRunner | None = None
    left: int = 0  # clients that went away
    headers: list[dict[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, int(self.address.rpartition(":")[2])).start()
        self.runner = runner
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.headers.append(dict(request.headers))
        body = await request.read()
        if request.path == "/fails":
            return web.Response(status=500)
        said = {"endpoint": self.address, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        if b'"stream": true' not in body[-20:]:
            return web.json_response(said | {"usage": USAGE, "echo": body.decode() if len(body) < 99 else ""})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for _ in range(3):
                await asyncio.sleep(0.1)
                await response.write(b"data: " + json.dumps(said).encode() + b"\n\n")
            if b"for ever" in body:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.left += 1
            raise
        await response.write(b"data: " + json.dumps({"usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n")
        return response


class Served:
    """A picker in this process, as the app puts it together."""

    def __init__(self, addresses: list[str], *, test_headers: bool = False, **settings: Any) -> None:
        chosen = PickerSettings(**settings)
        fleet = one_pool_settings(*addresses).fleet()
        self.silence = chosen.silence_seconds
        self.metrics = PickerMetrics()
        self.picker = Picker(chosen, fleet.endpoints.values(), seed=1)
        self.room = WaitingRoom(self.picker, chosen.hold_seconds, chosen.held_max)
        steerer = Steerer(chosen, fleet, PrefixHasher(b"k", chosen.block_bytes), self.picker, self.room)
        told = Reporter(self.metrics)
        self.gateways = Gateways(
            steerer,
            self.picker,
            self.room,
            told,
            self.metrics,
            Pools(fleet),
            test_headers=test_headers,
        )
        self.service = PickerService(steerer, self.picker, self.room, self.metrics, gateways=self.gateways)

    def count(self, outcome: str) -> float:
        return float(self.metrics.requests.labels(outcome)._value.get())

    def served(self, by: str) -> float:
        return float(self.metrics.served.labels(by)._value.get())

    @asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        async with (
            serve_picker(self.service, address, 8 << 20, transport=TRANSPORT),
            asyncio.TaskGroup() as tasks,
        ):
            running = [
                tasks.create_task(self.service.dispatch()),
                tasks.create_task(self.gateways.attend(self.silence)),
            ]
            yield
            for task in running:
                task.cancel()


@dataclass
class Gateway:
    """A running gateway, its picker and its engines."""

    picker: Served
    engines: list[EchoEngine]
    urls: Mapping[str, str]  # by the subset that its listener hints at

    async def ask(self, body: bytes, subset: str = "all", path: str = CHAT, **headers: str) -> Any:
        """Status, headers and body of an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(self.urls[subset], timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.post(path, data=_pieces(body), headers=named) as response,
        ):
            return response.status, response.headers, await response.read()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """In pieces: aiohttp warns of large plain bytes."""
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


def _listener(port: int, subset: object, picker_options: dict[str, Any]) -> dict[str, Any]:
    hint = {
        "name": "envoy.filters.http.set_metadata",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.set_metadata.v3.Config",
            "metadata": [{"metadata_namespace": SUBSET_NAMESPACE, "value": {SUBSET_KEY: subset}}],
        },
    }
    picker = {
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
            "failure_mode_allow": False,
            "message_timeout": "1000s",
            "metadata_options": {
                "forwarding_namespaces": {"untyped": [LB_NAMESPACE, SUBSET_NAMESPACE]},
                "receiving_namespaces": {"untyped": [LB_NAMESPACE]},
            },
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "request_trailer_mode": "SEND",
                "response_header_mode": "SEND",
                "response_body_mode": "FULL_DUPLEX_STREAMED",
                "response_trailer_mode": "SEND",
            },
            **picker_options,
        },
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {
                                "cluster": "pool",
                                "timeout": "0s",
                                "retry_policy": {
                                    "retry_on": "connect-failure,refused-stream",
                                    "num_retries": 2,
                                },
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [*([] if subset is None else [hint]), picker, router],
    }
    return {
        "name": f"gateway-{port}",
        "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _cluster(name: str, addresses: list[str], **more: Any) -> dict[str, Any]:
    hosts = [address.rpartition(":") for address in addresses]
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in hosts
    ]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment, **more}


def _pool(addresses: list[str]) -> dict[str, Any]:
    def policy(name: str, **config: Any) -> dict[str, Any]:
        kind = "".join(part.title() for part in name.split("_"))
        typed = {"@type": f"{TYPES}.load_balancing_policies.{name}.v3.{kind}", **config}
        extension = {"name": f"envoy.load_balancing_policies.{name}", "typed_config": typed}
        return {"policies": [{"typed_extension_config": extension}]}

    override = policy(
        "override_host",
        override_host_sources=[{"metadata": {"key": LB_NAMESPACE, "path": [{"key": DESTINATION_KEY}]}}],
        selected_host_key={"key": LB_NAMESPACE, "path": [{"key": SERVED_KEY}]},
        fallback_policy=policy("round_robin"),
    )
    return _cluster("pool", addresses, load_balancing_policy=override)


def _picker_cluster(address: str) -> dict[str, Any]:
    http2 = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return _cluster(
        "picker",
        [address],
        typed_extension_protocol_options={
            f"{TYPES.removeprefix('type.googleapis.com/')}.upstreams.http.v3.HttpProtocolOptions": http2
        },
    )


@asynccontextmanager
async def gateway(
    folder: Path, *, test_headers: bool = False, picker_options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway with three engines, and listeners that hint at several subsets of them."""
    engines = [EchoEngine() for _ in range(3)]
    addresses = [engine.address for engine in engines]
    picker, picker_address = Served(addresses, test_headers=test_headers, **settings), free_address()
    subsets = {
        "all": None,
        "list": [addresses[2]],
        "text": f"{addresses[1]}, {addresses[2]}",
        "empty": [],
        "strangers": ["10.9.9.9:80"],
    }
    ports = {name: free_port() for name in subsets}
    config = {
        "admin": {"address": {"socket_address": {"address": LOOPBACK, "port_value": 0}}},
        "static_resources": {
            "listeners": [_listener(ports[n], subset, picker_options or {}) for n, subset in subsets.items()],
            "clusters": [_pool(addresses), _picker_cluster(picker_address)],
        },
    }
    async with AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine.serving())
        await stack.enter_async_context(picker.serving(picker_address))
        await stack.enter_async_context(configured_envoy(folder, config))
        made = Gateway(picker, engines, {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()})
        await until(lambda: _answers(made))
        await until(lambda: len(picker.gateways) == 0)
        yield made


async def _answers(made: Gateway) -> bool:
    try:
        async with aiohttp.ClientSession(made.urls["all"]) as session, session.get("/ready") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
