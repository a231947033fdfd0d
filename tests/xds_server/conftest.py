from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from tests.xds_server.local_mesh import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def _grpc_outlives_the_event_loop() -> Iterator[None]:
    """Otherwise the last server's end joins gRPC's poller thread inside the loop: a blocking call."""
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    started = [Engine() for _ in range(3)]
    for engine in started:
        await engine.start()
    yield started
    for engine in started:
        await engine.stop()
