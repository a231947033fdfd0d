"""The picker process: settings in, a server, a view of the fleet and metrics running until told to stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from ext_proc import explain_page
from ext_proc.admission.door import Admission
from ext_proc.gateway import Gateways
from ext_proc.health_service import HealthService
from ext_proc.ledger_metrics import LedgerCollector
from ext_proc.lender import Lender
from ext_proc.loop_guard import guard_loop
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.pools import Pools
from ext_proc.replication.presence import fingerprint
from ext_proc.replication.replication import Replication
from ext_proc.reporter import Reporter
from ext_proc.server import PICK_SECONDS, PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.tracing import open_tracer
from ext_proc.trust import Trust
from ext_proc.view import View
from ext_proc.waiting import WaitingRoom
from ext_proc.watchdog import HANG_SHARE, Watchdog
from fleet import address as addresses
from fleet.errors import ConfigError, KvpilotError, first_of
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

FIRST_STATE_SECONDS = 2.0
"""A picker that starts while the store is away serves after this all the same, with the settings' fleet and
what its own requests teach it: better than weights that nobody keeps up to date."""
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


async def become_ready(watchdog: Watchdog, joined: asyncio.Event, view: View, seconds: float) -> None:
    """The picker is ready once it has learned what it can from other replicas, and the fleet's state was
    read, or after so many further `seconds` without it."""
    await joined.wait()
    try:
        async with asyncio.timeout(seconds):
            await view.read.wait()
    except TimeoutError:
        log.warning("no fleet state in %g s: serving with the settings' endpoints alone", seconds)
    watchdog.ready = True


async def guarded(joined: asyncio.Event, seconds: float) -> None:
    """Guard the event loop, once the copy that a new replica starts from is loaded: that is one long step."""
    await joined.wait()
    await guard_loop(seconds)


async def run(
    settings: Settings, source: str, stop: asyncio.Event, worker: int = 0, key: bytes | None = None
) -> None:
    """Serve until `stop` is set. `source` names the settings file in errors. Raises KvpilotError.

    As the `worker`th of several, whose `key` is that of all of them. The first one alone serves what gateways
    ask for at addresses of their own.
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
    LedgerCollector(picker, metrics.registry)
    room = WaitingRoom(picker, settings.picker.hold_seconds, settings.picker.held_max)
    admission = Admission(settings.admissions(), settings.tenants, picker, secrets.randbits(64))
    steerer = Steerer(
        settings.picker,
        fleet,
        PrefixHasher(key, settings.picker.block_bytes),
        picker,
        room,
        Trust(settings.trust),
        admission,
        retry_bytes=settings.envoy.buffer_bytes,
    )
    metrics.show(steerer.tallies)
    pick_seconds = min(PICK_SECONDS, HANG_SHARE * settings.envoy.message_timeout_seconds)
    watchdog = Watchdog(pick_seconds, room.longest)
    tracer = (
        await asyncio.to_thread(open_tracer, settings.picker.tracing) if settings.picker.tracing else None
    )
    tenants = frozenset(tenant.name for tenant in settings.tenants.known)
    reporter = Reporter(metrics, tracer)
    asked = settings.endpoint_picker
    gateways = Gateways(
        steerer,
        picker,
        room,
        reporter,
        metrics,
        Pools(fleet),
        mode=asked.mode,
        body_max=settings.envoy.buffer_bytes,
        test_headers=asked.test_headers,
        authorities=asked.pool_authorities,
    )
    store, streams = RedisStore(settings.redis_url), RedisStreams(settings.redis_url)
    hashes_like = fingerprint(key, settings.picker.block_bytes)
    replication = Replication(fleet, picker, room, streams, hashes_like, metrics.registry, outage)
    service = PickerService(
        steerer, picker, room, metrics, watchdog, reporter, tenants, gateways, replication.parking
    )
    health = HealthService(watchdog)
    try:
        async with (
            metrics_page(
                metrics.registry,
                "picker_metrics",
                page,
                [explain_page.route(steerer)],
                2 * settings.envoy.buffer_bytes,  # base64, and headers
            ),
            asyncio.TaskGroup() as tasks,
        ):
            view = View(fleet, picker, store, metrics, outage)
            jobs = [
                replication.run(),
                view.run(settings.collect.interval_seconds),
                service.dispatch(),
                gateways.attend(settings.picker.silence_seconds),
                health.run(),
                become_ready(watchdog, replication.ready, view, FIRST_STATE_SECONDS),
                guarded(replication.ready, settings.picker.stuck_seconds),
            ]
            if admission.budgets is not None:
                leases = StoreOutage(metrics.registry, "kvpilot_picker_leases")
                jobs.append(Lender(admission.budgets, store, leases).run())
            running = [tasks.create_task(job) for job in jobs]
            async with serve_picker(
                service,
                address,
                settings.envoy.buffer_bytes,
                health,
                health_address=None if worker else asked.health_address,
                pool_addresses={} if worker else asked.pool_addresses,
                transport=settings.picker.transport,
            ):
                log.info("picking among %d endpoints on %s", len(fleet.endpoints), address)
                await stop.wait()
            # Only now: whoever is still answered needs them, and Redis may be slow to hear that we leave.
            for task in running:
                task.cancel()
    except* KvpilotError as errors:
        raise first_of(errors) from None
    finally:
        await store.close()
        await streams.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)
