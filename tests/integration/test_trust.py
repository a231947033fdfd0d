"""Claims of a verified token through a real Envoy: its JWT filter, and our listener's ext_proc filter."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from ext_proc.admission.door import Admission
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.trust import Trust
from ext_proc.waiting import WaitingRoom
from fleet.prefix import PrefixHasher
from fleet.settings_file import parse
from tests.integration.static_envoy import configuration, http_filter, running_envoy
from tests.support import free_address, free_port
from tests.xds_server.local_mesh import Engine

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"a secret that only the issuer and Envoy know"
CHAT = "/v1/chat/completions"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: dict[str, Any], key: bytes = KEY) -> str:
    head = encoded(json.dumps({"alg": "HS256", "kid": "k"}).encode())
    signed = f"{head}.{encoded(json.dumps({'iss': 'us', **claims}).encode())}"
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def jwt_filter() -> dict[str, Any]:
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
    return http_filter("jwt_authn", "JwtAuthentication", jwt)


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
    trust, admission = Trust(settings.trust), Admission(settings.admissions(), settings.tenants, picker)
    steerer = Steerer(settings.picker, settings.fleet(), hasher, picker, room, trust, admission)
    service = PickerService(steerer, picker, room, PickerMetrics())
    port = int(settings.listen.rpartition(":")[2])
    async with (
        serve_picker(service, settings.picker_address, 1 << 20),
        running_envoy(tmp_path, configuration(settings, engine.address, jwt_filter()), port),
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
