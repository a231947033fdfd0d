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
from ext_proc.reporter import Reporter
from ext_proc.server import PICK_SECONDS, PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.tracing import open_tracer
from ext_proc.trust import Trust
from ext_proc.view import View
from ext_proc.waiting import WaitingRoom
from ext_proc.watchdog import HANG_SHARE, Watchdog
from fleet.errors import ConfigError
from fleet.names import LOG_FLUSH_SECONDS
from fleet.outage import StoreOutage
from fleet.prefix import PrefixHasher
from fleet.process import metrics_page
from fleet.store.redis import RedisStore

if TYPE_CHECKING:
    from fleet.settings import Settings

NEWS_WAY_SECONDS = 0.05
"""What a log entry's way from Envoy to the picker takes on a busy machine, once it was sent."""

FIRST_STATE_SECONDS = 2.0
"""A picker that starts while the store is away serves after this all the same, with the settings' fleet and
what its own requests teach it: better than weights that nobody keeps up to date."""

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


async def become_ready(watchdog: Watchdog, view: View, seconds: float) -> None:
    """The picker is ready once the fleet's state was read, or after so many `seconds` without it."""
    try:
        async with asyncio.timeout(seconds):
            await view.read.wait()
    except TimeoutError:
        log.warning("no fleet state in %g s: serving with the settings' endpoints alone", seconds)
    watchdog.ready = True


async def run(settings: Settings, source: str, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. `source` names the settings file in errors. Raises KvpilotError."""
    key = await asyncio.to_thread(read_key, settings, source)
    fleet = settings.fleet()
    metrics = PickerMetrics()
    outage = StoreOutage(metrics.registry, "kvpilot_picker")
    picker = Picker(
        settings.picker,
        fleet.endpoints.values(),
        seed=secrets.randbits(128),
        news_delay=settings.envoy.log_interval_seconds + LOG_FLUSH_SECONDS + NEWS_WAY_SECONDS,
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
    service = PickerService(steerer, picker, room, metrics, watchdog, reporter, tenants, gateways)
    health = HealthService(watchdog)
    store = RedisStore(settings.redis_url)
    try:
        async with (
            metrics_page(
                metrics.registry,
                "picker_metrics",
                settings.picker_metrics,
                [explain_page.route(steerer)],
                2 * settings.envoy.buffer_bytes,  # base64, and headers
            ),
            serve_picker(
                service,
                settings.picker_address,
                settings.envoy.buffer_bytes,
                health,
                health_address=asked.health_address,
                pool_addresses=asked.pool_addresses,
                transport=settings.picker.transport,
            ),
            asyncio.TaskGroup() as tasks,
        ):
            log.info("picking among %d endpoints on %s", len(fleet.endpoints), settings.picker_address)
            view = View(fleet, picker, store, metrics, outage)
            running = [
                tasks.create_task(view.run(settings.collect.interval_seconds)),
                tasks.create_task(service.dispatch()),
                tasks.create_task(gateways.attend(settings.picker.silence_seconds)),
                tasks.create_task(health.run()),
                tasks.create_task(become_ready(watchdog, view, FIRST_STATE_SECONDS)),
                tasks.create_task(guard_loop(settings.picker.stuck_seconds)),
            ]
            if admission.budgets is not None:
                leases = StoreOutage(metrics.registry, "kvpilot_picker_leases")
                running.append(tasks.create_task(Lender(admission.budgets, store, leases).run()))
            await stop.wait()
            for task in running:
                task.cancel()
    finally:
        await store.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)
