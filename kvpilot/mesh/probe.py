"""Asking whether a child serves yet: by connecting, and by one request through Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import aiohttp

from fleet import address as addresses
from kvpilot.mesh.ports import dialable

PROBE_SECONDS = 2.0
"""One probe waits no longer; the next one may find a better moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a GET brought: an HTTP status, or 0 and the reason why there was none."""

    status: int
    text: str


async def accepts(address: str) -> bool:
    """Whether something accepts connections at `host:port` or `unix:/path`."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            writer = await _connect(address)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _connect(address: str) -> asyncio.StreamWriter:
    path = addresses.unix_path(address)
    if path is not None:
        _, writer = await asyncio.open_unix_connection(path)
    else:
        host, port = addresses.split(dialable(address))
        _, writer = await asyncio.open_connection(host, port)
    return writer


async def get(session: aiohttp.ClientSession, url: str) -> Answer:
    """One GET; never raises for what the other side does."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS)) as response:
            body = await response.content.read(200)
            return Answer(response.status, " ".join(body.decode("utf-8", "replace").split()))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Answer(0, str(error) or type(error).__name__)
