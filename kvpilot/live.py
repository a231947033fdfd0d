"""What `kvpilot up` shows while the mesh runs: a greeting, then the fleet, until told to end.

On a terminal the table is live; elsewhere it is printed now and then; as JSON, one object a second. Figures
come from the store only, so the screen shows what the servers see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fleet.errors import StoreError
from fleet.model import Load, Traffic, Weight
from kvpilot import table
from kvpilot.table import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from fleet.model import Fleet
    from fleet.settings import Settings
    from fleet.store.base import Store

READ_SECONDS = 1.0
PRINT_SECONDS = 10.0
"""Between two tables where they cannot be redrawn in place."""

_PLAIN_WIDTH = 160  # characters; a pipe or a file has no width of its own
_EXAMPLE_TOKENS = 32


class Mesh(Protocol):
    """What is shown: a running mesh."""

    url: str
    settings: Settings

    @property
    def store(self) -> Store:
        """Where the fleet's state is read."""

    def check(self) -> None:
        """Raises StartError if a child has said that it cannot start."""


class Screen:
    """Where everything for people goes: stdout, or stderr where stdout carries JSON."""

    def __init__(self, *, as_json: bool, console: Console | None = None) -> None:
        self.as_json = as_json
        self.console = console or Console(stderr=as_json)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, _PLAIN_WIDTH)

    def announce(self, line: str) -> None:
        """One line about a child; it appears above a live table."""
        self.console.print(Text(line, style="yellow"), soft_wrap=True)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Shows that something goes on, where that can be taken back."""
        if self.console.is_terminal:
            with self.console.status("starting the mesh"):
                yield
        else:
            yield

    def greet(self, url: str, model: str) -> None:
        """Print the address and a request to try."""
        for line in (f"kvpilot is up at {url}", "", example(url, model), ""):
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def example(url: str, model: str) -> str:
    """A curl command that works as pasted into a shell."""
    body = {
        "model": model,
        "max_tokens": _EXAMPLE_TOKENS,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    }
    return (
        f"curl -s {url}/v1/chat/completions \\\n"
        "  -H 'content-type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )


async def show(mesh: Mesh, screen: Screen, *, seconds: float | None) -> None:
    """Show the fleet for `seconds`, or until cancelled. Raises StartError if a child cannot go on."""
    screen.greet(mesh.url, mesh.settings.models[0].name)
    with _painter(mesh, screen) as paint:
        records = Records()
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            mesh.check()
            records = await read(mesh.store, mesh.settings.fleet(), records)
            paint(records)
            left = READ_SECONDS if deadline is None else deadline - time.monotonic()
            await asyncio.sleep(max(min(READ_SECONDS, left), 0))


async def read(store: Store, fleet: Fleet, before: Records) -> Records:
    """All records of the fleet; those from `before`, marked, if the store is away."""
    load: dict[str, Load] = {}
    weight: dict[str, Weight] = {}
    traffic: dict[str, Traffic] = {}
    try:
        for model in fleet.models:
            load |= await store.read(model.name, Load)
            weight |= await store.read(model.name, Weight)
            traffic |= await store.read(model.name, Traffic)
    except StoreError as error:
        return replace(before, away=str(error))
    return Records(load, weight, traffic)


@contextlib.contextmanager
def _painter(mesh: Mesh, screen: Screen) -> Iterator[Callable[[Records], None]]:
    fleet = mesh.settings.fleet()
    stale_after = mesh.settings.collect.stale_after_seconds

    def picture(records: Records) -> Table:
        return table.render(table.rows(fleet, records, time.time()), records, stale_after=stale_after)

    if screen.as_json:
        yield lambda records: _print_json(mesh.url, fleet, records)
    elif screen.console.is_terminal:
        with Live(console=screen.console, auto_refresh=False) as live:
            yield lambda records: live.update(picture(records), refresh=True)
    else:
        yield _Printer(screen.console, picture)


class _Printer:
    """Prints a table at once when the first endpoint was read, then every `PRINT_SECONDS`."""

    def __init__(self, console: Console, picture: Callable[[Records], Table]) -> None:
        self._console = console
        self._picture = picture
        self._next = 0.0

    def __call__(self, records: Records) -> None:
        if time.monotonic() >= self._next:
            self._console.print(self._picture(records))
            self._next = time.monotonic() + PRINT_SECONDS if records.load else 0.0


def _print_json(url: str, fleet: Fleet, records: Records) -> None:
    now = time.time()
    print(json.dumps(table.as_json(url, table.rows(fleet, records, now), records, now)), flush=True)
