"""A stand-in for Envoy and the engines behind it: a real HTTP server whose streams do as they are told."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from fleet.names import ENDPOINT_HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Upstream:
    """What requests came, and how each is answered."""

    endpoint: str = "10.0.0.1:8000"
    status: int = 200
    prefill_seconds: float = 0.0  # between the headers and the first token
    cut_after: int | None = None  # tokens, then the connection is dropped
    end_mark: bool = True
    tokens: int = 4
    metrics: str = ""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.sessions.append(request.headers.get("x-session-id", ""))
        if self.status != 200:
            return web.json_response({"error": "no"}, status=self.status)
        headers = {ENDPOINT_HEADER: self.endpoint}
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **headers})
        await response.prepare(request)
        await response.write(_event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        await asyncio.sleep(self.prefill_seconds)
        for number in range(self.tokens):
            if number == self.cut_after and request.transport is not None:
                request.transport.close()
                return response
            await response.write(_event({"choices": [{"delta": {"content": f"t{number} "}}]}))
        usage = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 25}}
        await response.write(_event({"choices": [], "usage": usage}))
        if self.end_mark:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.metrics)


def _event(event: object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[Upstream]:
    """Serve it on a free port; `url` is then set."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", upstream.chat)
    application.router.add_get("/metrics", upstream.show_metrics)
    async with TestServer(application) as server:
        upstream.url = str(server.make_url("")).rstrip("/")
        yield upstream
