"""`kvpilot explain`: the candidates for one request, as the running picker sees them, or as Redis lets us."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ext_proc import explain_page
from ext_proc.explain import explain
from ext_proc.picker import Picker
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from fleet.errors import ConfigError, StartError, StoreError
from fleet.model import RATE_STALE_SECONDS, Load, Rate, cluster_name
from fleet.prefix import PrefixHasher
from fleet.settings_file import load
from fleet.store.base import read_fleet
from fleet.store.redis import RedisStore
from kvpilot.mesh.ports import dialable

if TYPE_CHECKING:
    from ext_proc.explain import Explanation
    from fleet.settings import Settings
    from fleet.store.base import Store

DEFAULT_PATH = "/v1/chat/completions"
ASK_SECONDS = 5.0
"""A picker answers within milliseconds."""

_WIDTH = 160  # characters; a pipe or a file has no width of its own
_COLUMNS = {
    "matched_tokens": "matched",
    "uncached_tokens": "uncached",
    "owed_tokens": "owed",
    "tokens_per_second": "tokens/s",
    **dict.fromkeys(("wait", "prefill", "room", "detour"), ""),
    "ttft": "TTFT",
    **dict.fromkeys(("later", "behind", "streams", "memory", "cost"), ""),
}


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser("explain", help="show where a request would go now, and why")
    command.set_defaults(run=run)
    command.add_argument("request", type=Path, metavar="request.json", help="the request's body")
    command.add_argument("-c", dest="config", type=Path, required=True, metavar="kvpilot.yaml")
    command.add_argument("--path", default=DEFAULT_PATH, help=f"{DEFAULT_PATH} by default")
    command.add_argument("--cluster", help="MODEL/VERSION that the route chose; its heaviest by default")
    command.add_argument("--header", action="append", type=_header, default=[], metavar="NAME:VALUE")
    command.add_argument("--json", dest="as_json", action="store_true", help="JSON on stdout")


def run(options: argparse.Namespace) -> None:
    """Run the command. Raises KvpilotError for what the user can mend."""
    settings = load(options.config)
    body = _read(options.request)
    headers = dict(options.header)
    cluster = _known(settings, options.cluster) if options.cluster else guess_cluster(settings, headers)
    answer = asyncio.run(_explained(settings, cluster, options.path, headers, body))
    if options.as_json:
        print(json.dumps(answer, indent=2))
    else:
        show(answer, Console())


async def _explained(
    settings: Settings, cluster: str, path: str, headers: dict[str, str], body: bytes
) -> Explanation:
    if settings.picker_metrics is not None:
        url = f"http://{dialable(settings.picker_metrics)}{explain_page.PATH}"
        answer = await ask_picker(url, explain_page.question(cluster, path, headers, body))
        if answer is not None:
            return {"source": "picker", "note": "", **answer}
        missing = f"no picker answers at {settings.picker_metrics}"
    else:
        missing = "picker_metrics is not set, so no picker can be asked"
    store = RedisStore(settings.redis_url)
    try:
        answer = await from_store(settings, store, cluster, path, headers, body)
    except StoreError as error:
        raise StoreError(f"{missing}, and {error}") from error
    finally:
        await store.close()
    note = f"{missing}: from loads and rates in Redis alone, without prefixes, sessions and work in flight"
    return {"source": "store", "note": note, **answer}


async def ask_picker(url: str, question: bytes) -> Explanation | None:
    """What the running picker says; None where none answers. Raises StartError where it refuses to."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS)) as session,
            session.post(url, data=question) as response,
        ):
            status, answer = response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    if not isinstance(answer, dict) or status != 200:
        said = answer.get("error", "") if isinstance(answer, dict) else ""
        raise StartError(f"{url} answers HTTP {status} {said}".rstrip())
    return answer


async def from_store(
    settings: Settings, store: Store, cluster: str, path: str, headers: dict[str, str], body: bytes
) -> Explanation:
    """What a picker that has just started would say. Raises StoreError."""
    fleet, now, at = settings.fleet(), time.monotonic(), time.time()
    picker = Picker(
        settings.picker, fleet.endpoints.values(), stale_after=settings.collect.stale_after_seconds
    )
    for address, rate in (await read_fleet(store, fleet, Rate)).items():
        if at - rate.at <= RATE_STALE_SECONDS:
            picker.believe(address, rate.prefill)
    for address, found in (await read_fleet(store, fleet, Load)).items():
        picker.observe(address, found, now - (at - found.at))
    hasher = PrefixHasher(b"nothing is kept", settings.picker.block_bytes)
    steerer = Steerer(settings.picker, fleet, hasher, picker, WaitingRoom(picker, 0, 1))
    return explain(steerer, cluster, path, headers, body, now)


def guess_cluster(settings: Settings, headers: dict[str, str]) -> str:
    """Where Envoy would most probably route it: the header's model or the first, its heaviest version."""
    named = headers.get(settings.picker.model_header)
    model = next((m for m in settings.models if m.name == named), settings.models[0])
    return cluster_name(model.name, max(model.versions, key=lambda version: version.weight).name)


def show(answer: Explanation, console: Console) -> None:
    """The table for people."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    candidates: Any = answer["candidates"]
    if answer["note"]:
        console.print(Text(f"note: {answer['note']}", style="yellow"), soft_wrap=True)
    if not candidates:
        console.print(Text(f"{answer['cluster']}: left to the weights: {answer['outcome']}"), soft_wrap=True)
        return
    first = candidates[0]["endpoint"]
    console.print(Text(f"{answer['cluster']}: {first}, {answer['why']}"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption="seconds, tokens", caption_justify="left")
    table.add_column("endpoint")
    for key, heading in _COLUMNS.items():
        table.add_column(heading or key, justify="right")
    for row in candidates:
        table.add_row(row["endpoint"], *(_cell(row[key]) for key in _COLUMNS))
    console.print(table)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _known(settings: Settings, cluster: str) -> str:
    fleet = settings.fleet()
    known = {**fleet.clusters, **fleet.grpc_clusters}
    if cluster not in known:
        raise ConfigError("command line", "--cluster", cluster, f"expected one of {', '.join(known)}")
    return cluster


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), "", None, f"cannot be read: {error.strerror}") from error


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:VALUE")
    return name.strip().lower(), value.strip()
