from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ext_proc.health_service import LIVENESS_SERVICES, READINESS_SERVICES, HealthService, always_serving
from ext_proc.watchdog import Watchdog
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Status = health_pb2.HealthCheckResponse


class Asked:
    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog
        self.health = HealthService(watchdog)
        self.stub: Any = None

    async def says(self, name: str = "") -> int:
        answer = await self.stub.Check(health_pb2.HealthCheckRequest(service=name))
        return int(answer.status)


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    made = Asked(Watchdog(pick_seconds=0.1, hold_seconds=1.0))
    server = grpc.aio.server()
    made.health.add_to(server)
    await made.health.start()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        made.stub = health_pb2_grpc.HealthStub(channel)
        yield made
    await server.stop(0)


async def test_is_not_serving_until_a_first_state_is_there_but_alive(asked: Asked) -> None:
    assert {await asked.says(name) for name in READINESS_SERVICES} == {Status.NOT_SERVING}
    assert {await asked.says(name) for name in LIVENESS_SERVICES} == {Status.SERVING}
    asked.watchdog.ready = True
    await asked.health.look()
    assert {await asked.says(name) for name in READINESS_SERVICES} == {Status.SERVING}


async def test_follows_the_watchdog_while_it_runs(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    asked.watchdog.ready = True
    asked.watchdog.picks.began("stuck", time.monotonic() - 1)

    async def says(status: int) -> bool:
        return await asked.says() == status

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(asked.health.run())
        await until(lambda: says(Status.NOT_SERVING))
        await until(lambda: "picks hang" in caplog.text)
        assert await asked.says("liveness") == Status.SERVING
        asked.watchdog.dropped("stuck")
        await until(lambda: says(Status.SERVING))
        running.cancel()


async def test_is_not_serving_once_it_stops(asked: Asked) -> None:
    asked.watchdog.ready = True
    await asked.health.look()
    await asked.health.stop()
    await asked.health.look()
    assert await asked.says() == Status.NOT_SERVING


async def test_a_name_that_nobody_serves_is_not_found(asked: Asked) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked.says("somebody.else")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_without_a_watchdog_it_always_serves() -> None:
    health = always_serving()
    await health.start()
    request = health_pb2.HealthCheckRequest(service="")
    assert (await health._servicer.Check(request, None)).status == Status.SERVING
