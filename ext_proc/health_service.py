"""The picker's health over gRPC: what its watchdog finds, under every name that gateways ask for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc.watchdog import Standing, Watchdog

if TYPE_CHECKING:
    import grpc

_log = logging.getLogger(__name__)

EXT_PROC_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

READINESS_SERVICES = ("", EXT_PROC_SERVICE, "readiness", "inference-extension")
"""Whether requests should come: Envoy asks for the empty name, endpoint-picker deployments for the others."""

LIVENESS_SERVICES = ("liveness",)
"""Whether the process is worth keeping: whoever gets an answer at all may say yes."""

LOOK_SECONDS = 0.05
"""Between two looks: two of them must find a hanging pick before Envoy gives it up after 0.25 s."""


def always_serving() -> HealthService:
    """Health without a watchdog."""
    watchdog = Watchdog(pick_seconds=1.0, hold_seconds=0.0)
    watchdog.ready = True
    return HealthService(watchdog)


class HealthService:
    """Answers health checks. The same one may be served on several ports."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._servicer = health.aio.HealthServicer()
        self._standing: Standing | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer on this server, too."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Have an answer for everybody; to be called before a server starts."""
        await self._set(LIVENESS_SERVICES, serving=True)
        await self.look()

    async def run(self) -> None:
        """Follow the watchdog for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Ask the watchdog now."""
        standing = self._watchdog.look(time.monotonic())
        if standing is self._standing:
            return
        level = logging.WARNING if standing is Standing.HANGING else logging.INFO
        _log.log(level, "health: %s", standing.value)
        self._standing = standing
        await self._set(READINESS_SERVICES, serving=standing is Standing.SERVING)

    async def stop(self) -> None:
        """NOT_SERVING for good: the process ends."""
        await self._servicer.enter_graceful_shutdown()

    async def _set(self, names: tuple[str, ...], *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in names:
            await self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)
