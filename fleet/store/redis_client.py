"""A client for the Redis that a URL names, and its exceptions as ours."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis.asyncio
from redis.asyncio.sentinel import Sentinel
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError

from fleet.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DRIVER = DriverInfo()
"""Made once, here: redis-py would read its own version from disk for each connection, in the event loop."""

TIMEOUT_SECONDS = 1.0
"""A Redis that takes longer is treated as away: callers work on from memory."""

SENTINEL_PORT = 26379
SENTINEL_SCHEMES = {"redis+sentinel": False, "rediss+sentinel": True}
"""And whether Redis, and the Sentinels, are spoken to by TLS."""


def connect(url: str) -> redis.asyncio.Redis:
    """A client for `redis://`, `rediss://`, `unix://`, or behind Sentinels
    `redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]`. Nothing is dialled yet.

    Raises StoreError for any other URL.
    """
    try:
        if urlsplit(url).scheme in SENTINEL_SCHEMES:
            return _behind_sentinels(url)
        return redis.asyncio.Redis.from_url(url, **_options())
    except ValueError as error:
        raise StoreError(f"{without_password(url)}: not a Redis URL: {error}") from error


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "driver_info": _DRIVER,
    }


def _behind_sentinels(url: str) -> redis.asyncio.Redis:
    parts = urlsplit(url)
    service, _, database = parts.path.strip("/").partition("/")
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if not hosts or not service or not (database.isdigit() or not database):
        raise ValueError("expected redis+sentinel://host:port[,host:port...]/service[/db]")
    sentinels = []
    for host_port in hosts.split(","):
        host, _, port = host_port.rpartition(":") if ":" in host_port else (host_port, "", "")
        sentinels.append((host, int(port or SENTINEL_PORT)))
    options = {**_options(), "db": int(database or 0)}
    if user:
        options |= {"username": unquote(name) or None, "password": unquote(password)}
    secure: dict[str, Any] = {"ssl": True} if SENTINEL_SCHEMES[parts.scheme] else {}
    watchers = Sentinel(sentinels, sentinel_kwargs={**_options(), **secure})  # type: ignore[no-untyped-call]
    client: redis.asyncio.Redis = watchers.master_for(service, **options, **secure)
    return client


async def disconnect(client: redis.asyncio.Redis) -> None:
    """Close the client's connections, those to Sentinels too."""
    await client.aclose()
    watchers = getattr(client.connection_pool, "sentinel_manager", None)
    for watcher in () if watchers is None else watchers.sentinels:
        await watcher.aclose()


@contextlib.contextmanager
def faults(what: str) -> Iterator[None]:
    """redis-py's exceptions as StoreError; and a cancellation that it swallowed is still one.

    redis-py waits with `asyncio.wait_for`, which in Python 3.11 returns its result and drops a cancellation
    that arrives together with it: a loop that reads every second would go on after Ctrl-C.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    fault: Exception | None = None
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        fault = error
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError from fault
    if fault is not None:
        raise StoreError(f"{what}: {fault}") from fault


def without_password(url: str) -> str:
    """The URL as it may be shown, for errors are logged: no user info, no query."""
    parts = urlsplit(url)
    masked = "***@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, masked + parts.netloc.rpartition("@")[2], parts.path, "", ""))
