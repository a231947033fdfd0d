"""How each server of ours runs as a process: `python -m NAME -c kvpilot.yaml`, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fleet import address as addresses
from fleet import logs, settings_file
from fleet.errors import KvpilotError, StartError
from fleet.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prometheus_client import CollectorRegistry

Serve = Callable[[Settings, str, asyncio.Event], Coroutine[Any, Any, None]]
"""Serves until the event is set; the text names the settings file in errors. May raise KvpilotError."""


def main(
    name: str,
    description: str,
    serve: Serve,
    arguments: Sequence[str] | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
) -> int:
    """Run `serve`; the exit status: 0 when told to stop, 2 after one line about what the user can mend.

    `parents` hold a server's own options: it reads them itself.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description, parents=list(parents))
    parser.add_argument("-c", "--config", type=Path, required=True, help="kvpilot.yaml")
    parser.add_argument(
        "--log", choices=("debug", "info", "warning"), default="info", help="debug: every decision, explained"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="json: one object a line, for machines"
    )
    options = parser.parse_args(arguments)
    path: Path = options.config
    logs.configure(options.log, options.log_format)
    try:
        uvloop.run(until_signalled(serve, settings_file.load(path), str(path)))
    except KvpilotError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    return 0


async def until_signalled(serve: Serve, settings: Settings, source: str) -> None:
    """Run `serve` until SIGTERM or SIGINT; `source` names the file in errors. Raises KvpilotError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(settings, source, stop)


@contextlib.asynccontextmanager
async def metrics_page(
    registry: CollectorRegistry,
    field: str,
    address: str | None,
    routes: Sequence[web.RouteDef] = (),
    largest_body: int = 1 << 20,
) -> AsyncIterator[None]:
    """Show `registry` at http://`address`/metrics inside the context; nothing where it is None.

    Further `routes` are served beside it, to bodies of at most `largest_body` bytes.

    Raises StartError, naming the settings `field`, if the address cannot be listened on.
    """
    if address is None:
        yield
        return

    async def page(_: web.Request) -> web.Response:
        # In a thread: thousands of endpoints make a page that takes a while.
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=largest_body)
    app.add_routes([web.get("/metrics", page), *routes])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        host, port = addresses.split(address)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise StartError(f"{field} {address}: cannot listen: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
