"""POST /explain on the picker's metrics page: what `kvpilot explain` asks. For the same machine only.

A prompt comes in and nothing of it is kept; but whoever may ask can make the picker work and see its fleet,
so only loopback may. A proxy on the same machine (a mesh's sidecar) passes others' requests on, and says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import TYPE_CHECKING

from aiohttp import web

from ext_proc.explain import explain

if TYPE_CHECKING:
    from ext_proc.steer import Steerer

PATH = "/explain"
LOOPBACK = ("127.0.0.1", "::1")
"""Exactly these: a sidecar's own address is another one of 127.0.0.0/8."""

PASSED_ON = ("x-forwarded-for", "forwarded", "via")


class BadQuestionError(ValueError):
    """What was posted is no question."""


def route(steerer: Steerer) -> web.RouteDef:
    """The page, for a picker that `steerer` decides for."""

    async def page(request: web.Request) -> web.Response:
        if request.remote not in LOOPBACK or any(name in request.headers for name in PASSED_ON):
            return web.json_response({"error": "only for this machine"}, status=403)
        try:
            cluster, path, headers, body = _question(await request.read())
        except BadQuestionError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(explain(steerer, cluster, path, headers, body, time.monotonic()))

    return web.post(PATH, page)


def question(cluster: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """What to post."""
    text = base64.b64encode(body).decode()
    return json.dumps({"cluster": cluster, "path": path, "headers": headers, "body": text}).encode()


def _question(data: bytes) -> tuple[str, str, dict[str, str], bytes]:
    try:
        asked = json.loads(data)
        cluster, path, headers, body = (asked[key] for key in ("cluster", "path", "headers", "body"))
        if not all(isinstance(text, str) for text in (cluster, path, body, *headers, *headers.values())):
            raise BadQuestionError("not text")
        return cluster, path, headers, base64.b64decode(body, validate=True)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise BadQuestionError("expected JSON: cluster, path, headers and, in base64, body") from error
