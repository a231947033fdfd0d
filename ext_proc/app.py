"""The picker process: settings in, a server, a view of the fleet and metrics running until told to stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.replication.presence import fingerprint
from ext_proc.replication.replication import Replication
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.view import View
from ext_proc.waiting import WaitingRoom
from fleet import address as addresses
from fleet.errors import ConfigError, KvpilotError
from fleet.names import LOG_FLUSH_SECONDS
from fleet.outage import StoreOutage
from fleet.prefix import PrefixHasher
from fleet.process import metrics_page
from fleet.store.redis import RedisStore
from fleet.store.redis_streams import RedisStreams

if TYPE_CHECKING:
    from fleet.settings import Settings

NEWS_WAY_SECONDS = 0.05
"""What a log entry's way from Envoy to the picker takes on a busy machine, once it was sent."""

REPLICA_LAG_SECONDS = 0.02
"""From another replica's news to our hearing of it: the log entry may arrive anywhere."""

NEWS_SECONDS = LOG_FLUSH_SECONDS + NEWS_WAY_SECONDS + REPLICA_LAG_SECONDS

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


async def run(
    settings: Settings, source: str, stop: asyncio.Event, worker: int = 0, key: bytes | None = None
) -> None:
    """Serve until `stop` is set. `source` names the settings file in errors. Raises KvpilotError.

    As the `worker`th of several, whose `key` is that of all of them.
    """
    if key is None:
        key = await asyncio.to_thread(read_key, settings, source)
    address, page = addresses.of_worker(settings.picker_address, worker), settings.picker_metrics
    if page is not None:
        page = addresses.of_worker(page, worker)
    fleet = settings.fleet()
    metrics = PickerMetrics()
    outage = StoreOutage(metrics.registry, "kvpilot_picker")
    picker = Picker(
        settings.picker,
        fleet.endpoints.values(),
        seed=secrets.randbits(128),
        news_delay=settings.envoy.log_interval_seconds + NEWS_SECONDS,
        stale_after=settings.collect.stale_after_seconds,
        name=secrets.token_hex(8),
    )
    room = WaitingRoom(picker, settings.picker.hold_seconds, settings.picker.held_max)
    steerer = Steerer(settings.picker, fleet, PrefixHasher(key, settings.picker.block_bytes), picker, room)
    store, streams = RedisStore(settings.redis_url), RedisStreams(settings.redis_url)
    hashes_like = fingerprint(key, settings.picker.block_bytes)
    replication = Replication(fleet, picker, room, streams, hashes_like, metrics.registry, outage)
    service = PickerService(steerer, picker, room, metrics, replication.parking)
    try:
        async with (
            metrics_page(metrics.registry, "picker_metrics", page),
            asyncio.TaskGroup() as tasks,
        ):
            exchange = tasks.create_task(replication.run())
            await replication.ready.wait()  # what it learns from the others comes first
            async with serve_picker(service, address, settings.envoy.buffer_bytes):
                log.info("picking among %d endpoints on %s", len(fleet.endpoints), address)
                view = View(fleet, picker, store, metrics, outage)
                running = (
                    exchange,
                    tasks.create_task(view.run(settings.collect.interval_seconds)),
                    tasks.create_task(service.dispatch()),
                )
                await stop.wait()
            for task in running:
                task.cancel()
    except* KvpilotError as errors:
        raise errors.exceptions[0] from None
    finally:
        await store.close()
        await streams.close()
