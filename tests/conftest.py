"""What every test is held to: no blocking call in the event loop, no task left behind, no timed examples."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# An example that takes long says that the machine is busy, nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

OUR_PACKAGES = ["fleet", "xds_server", "ext_proc", "sim", "kvpilot"]


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx(OUR_PACKAGES):
        yield


@pytest.fixture(autouse=True)
async def _no_leaked_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)  # what was cancelled last may still have to end
    leaked = {task for task in asyncio.all_tasks() - before if not task.done()}
    leaked.discard(asyncio.current_task())
    assert not leaked, f"tasks left running: {leaked}"
