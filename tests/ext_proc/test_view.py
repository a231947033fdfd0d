from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from ext_proc.view import View
from fleet.errors import StoreError
from fleet.model import (
    RATE_STALE_SECONDS,
    UNKNOWN_RATE,
    Endpoint,
    Fleet,
    Hardware,
    Load,
    Model,
    Rate,
    Traffic,
    Version,
)
from fleet.outage import StoreOutage
from fleet.settings import PickerSettings
from fleet.store.memory import MemoryStore

if TYPE_CHECKING:
    from fleet.store.base import Record

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"
ENDPOINTS = tuple(Endpoint(a, "m", "v", "p", Hardware("H100-80GB")) for a in (ONE, TWO))
FLEET = Fleet((Model("m", (Version("v", 100, ENDPOINTS),)),))


class Fixture:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.picker = Picker(PickerSettings(), ENDPOINTS)
        self.metrics = PickerMetrics()
        self.outage = StoreOutage(self.metrics.registry, "test")
        self.view = View(FLEET, self.picker, self.store, self.metrics, self.outage)

    def pick(self, now: float) -> str:
        decision = self.picker.pick(RoutingRequest((ONE, TWO), 1000, range(15), 64), now)
        assert decision is not None
        return decision.endpoints[0]


@pytest.fixture
def made() -> Fixture:
    return Fixture()


async def test_tells_the_picker_what_the_collector_found(made: Fixture) -> None:
    await made.store.write("m", {ONE: Load(at=1000.0, ready=False)})
    await made.view.exchange(now=5.0, at=1001.0)
    assert {made.pick(5.0 + n) for n in range(5)} == {TWO}


async def test_a_load_too_old_to_matter_and_strangers_are_ignored(made: Fixture) -> None:
    await made.store.write("m", {ONE: Load(at=900.0, ready=False), "6.6.6.6:6": Load(at=1001.0)})
    await made.view.exchange(now=5.0, at=1001.0)
    decision = made.picker.pick(RoutingRequest((ONE, TWO, "6.6.6.6:6"), 1000, (), 64), 5.0)
    assert decision is not None
    assert set(decision.endpoints) == {ONE, TWO}


async def test_publishes_what_it_saw_and_learned(made: Fixture) -> None:
    decision = made.picker.pick(RoutingRequest((ONE,), 6400, range(100), 64), 1.0)
    assert decision is not None
    made.picker.first_token(decision.id, 1.8)
    made.picker.finish(decision.id, 2.0, endpoint=ONE)
    made.picker.expire(10.0)
    await made.view.exchange(now=10.0, at=1010.0)
    traffic = await made.store.read("m", Traffic)
    rates = await made.store.read("m", Rate)
    assert traffic[ONE].ttft_p50 == pytest.approx(0.8)
    assert (rates[ONE].observations, rates[ONE].at) == (1, 1010.0)
    assert TWO not in rates


async def test_starts_from_the_rates_that_were_learned_before_a_restart(made: Fixture) -> None:
    learned, old = (
        Rate(43_210.0, 0.01, at=1000.0, observations=90),
        Rate(99_999.0, 0.01, at=1000.0, observations=9),
    )
    await made.store.write("m", {ONE: learned, TWO: replace(old, at=1000.0 - RATE_STALE_SECONDS)})
    await made.view.remember(at=1001.0)
    decision = made.picker.pick(RoutingRequest((ONE, TWO), 1000, (), 64), 0.0)
    assert decision is not None
    rates = {found.prediction.address: found.prediction.rate for found in decision.reasons}
    assert rates == {ONE: 43_210.0, TWO: UNKNOWN_RATE.prefill}


class BrokenStore(MemoryStore):
    """Away: every read fails; enough of them set `tired`."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.tired = asyncio.Event()

    async def read(self, model: str, kind: type[Record]) -> dict[str, Record]:
        self.failures += 1
        if self.failures == 3:
            self.tired.set()
        raise StoreError(f"no {kind.__name__} of {model}")


async def test_goes_on_while_the_store_is_away_and_says_so_once(
    made: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    store = BrokenStore()
    view = View(FLEET, made.picker, store, made.metrics, made.outage)
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(view.run(interval=0.001))
        await store.tired.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [r.message for r in caplog.records] == ["going on without the store: no Rate of m"]
    assert made.pick(1.0) in (ONE, TWO)
