"""Keeps tenants' budgets supplied with leases from the store, in the background: no request waits for it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext_proc.admission.budget import Budgets
    from fleet.outage import StoreOutage
    from fleet.store.base import Store

RENEW_SECONDS = 0.05
"""Between two looks at who needs tokens: within it a tenant can use no more than a lease."""

AWAY_SECONDS = 0.5
"""Between two tries while the store is away."""


class Lender:
    """One replica's exchange of leases with the store."""

    def __init__(self, budgets: Budgets, store: Store, outage: StoreOutage) -> None:
        self._budgets = budgets
        self._store = store
        self._outage = outage

    async def run(self) -> None:
        """Renew for ever."""
        while True:
            await self.renew(time.monotonic())
            await asyncio.sleep(AWAY_SECONDS if self._budgets.away else RENEW_SECONDS)

    async def renew(self, now: float) -> None:
        """Ask the store once for all that is needed, if anything is."""
        asks = self._budgets.asks(now)
        if not asks:
            return
        answered = False
        with self._outage.tolerated():
            leases = await self._store.lease(asks)
            for ask, lease in zip(asks, leases, strict=True):
                self._budgets.lent(ask, lease, now)
            answered = True
        if answered:
            self._budgets.found(now)
        else:
            self._budgets.lost()
