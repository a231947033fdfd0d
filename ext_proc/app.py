"""The picker process: settings in, a server, a view of the fleet and metrics running until told to stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from ext_proc.metrics import Metrics
from ext_proc.picker import Picker
from ext_proc.server import PickerServer
from ext_proc.steer import Steerer
from ext_proc.view import View
from fleet.errors import ConfigError
from fleet.prefix import PrefixHasher
from fleet.process import metrics_page
from fleet.store.redis import RedisStore

if TYPE_CHECKING:
    from fleet.settings import Settings

LOG_BATCH_SECONDS = 0.1
"""Envoy gathers log entries for 50 ms before sending; the rest is the way and the loop."""

STOP_GRACE_SECONDS = 0.5
"""A pick takes a millisecond; whoever has not been answered by now fails open."""

log = logging.getLogger(__name__)


def read_key(settings: Settings, source: str) -> bytes:
    """The secret that seeds prefix hashes: the configured file's, or a fresh one of this process.

    Raises ConfigError where the file cannot be read or is empty.
    """
    path = settings.picker.key_file
    if path is None:
        return secrets.token_bytes(32)
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(source, "picker.key_file", str(path), f"cannot be read: {error}") from error
    if not key:
        raise ConfigError(
            source, "picker.key_file", str(path), "is empty: expected a secret of 32 bytes or so"
        )
    return key


async def run(settings: Settings, source: str, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. `source` names the settings file in errors. Raises KvpilotError."""
    key = await asyncio.to_thread(read_key, settings, source)
    fleet = settings.fleet()
    metrics = Metrics()
    picker = Picker(
        settings.picker,
        fleet.endpoints.values(),
        seed=secrets.randbits(128),
        news_delay=settings.envoy.log_interval_seconds + LOG_BATCH_SECONDS,
    )
    steerer = Steerer(settings.picker, fleet, PrefixHasher(key, settings.picker.block_bytes), picker)
    server = PickerServer(steerer, picker, metrics, settings.envoy.buffer_bytes)
    store = RedisStore(settings.redis_url)
    try:
        async with metrics_page(metrics.registry, "picker_metrics", settings.picker_metrics):
            await server.start(settings.picker_address)
            log.info("picking among %d endpoints on %s", len(fleet.endpoints), settings.picker_address)
            async with asyncio.TaskGroup() as tasks:
                view = tasks.create_task(View(fleet, picker, store, metrics).run())
                await stop.wait()
                view.cancel()
                await server.stop(STOP_GRACE_SECONDS)
    finally:
        await store.close()
