from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from ext_proc.admission.budget import Budgets, Charge
from ext_proc.lender import Lender
from fleet.outage import StoreOutage
from fleet.settings import TenantsSettings
from fleet.store.leases import LeaseAsk
from tests.support import AwayStore, until

if TYPE_CHECKING:
    from fleet.store.memory import MemoryStore

SETTINGS = TenantsSettings(budget_tokens=1000, budget_window_seconds=60, lease_share=0.1)


def make(store: MemoryStore, replicas: int = 2) -> tuple[Budgets, Lender]:
    budgets = Budgets(SETTINGS, lambda: replicas)
    return budgets, Lender(budgets, store, StoreOutage(CollectorRegistry(), "test"))


async def test_two_replicas_share_one_budget_through_the_store() -> None:
    store = AwayStore(away=False)
    pairs = [make(store), make(store)]
    got = 0
    for n in range(200):
        budgets, lender = pairs[n % 2]
        if isinstance(budgets.charge("t", "m", 20, n * 0.1), Charge):
            got += 20
        await lender.renew(n * 0.1)
    assert 1000 <= got <= 1000 + 2 * (100 + 20)


async def test_goes_on_with_the_local_share_while_the_store_is_away_and_books_it_afterwards() -> None:
    store = AwayStore()
    budgets, lender = make(store)
    assert isinstance(budgets.charge("t", "m", 20, 0.0), Charge)
    await lender.renew(0.0)
    got = 20
    while isinstance(budgets.charge("t", "m", 20, 1.0), Charge):
        got += 20
    assert got == 500
    store.away = False
    await lender.renew(2.0)
    assert isinstance(budgets.charge("t", "m", 20, 2.0), Charge)
    (lease,) = await store.lease([LeaseAsk("t", 0, 0, 1000, 60)])
    assert 500 <= lease.used <= 700  # that, and leases


async def test_renews_by_itself() -> None:
    store = AwayStore(away=False)
    budgets, lender = make(store)
    budgets.charge("t", "m", 150, 0.0)  # more than a lease
    assert isinstance(budgets.charge("t", "m", 1, 0.0), float)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(lender.run())
        await until(lambda: isinstance(budgets.charge("t", "m", 1, 0.1), Charge))
        running.cancel()
