"""Tenants' token budgets, decided from memory: tokens lent before, and fetched again in the background.

A replica is ahead of the common account by one lease at most, and a request is let in while any of the lease
is left. So within any window tenants use at most

    budget + replicas x (lease + the largest request)

of tokens, counted as they are charged. While the store is away each replica lets its tenants have budget /
replicas within any window and the rest of one request, what it let them have before included; replicas are
those known before, for they hear of each other through the store, and any that come to be known. A tenant
that a replica has not seen for a window begins with a lease that is booked afterwards. What an answer
really used replaces what was expected of it at its end.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.store.leases import BUCKETS, LeaseAsk, SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.settings import TenantsSettings
    from fleet.store.leases import Lease

ACCOUNTS_MAX = 10_000
"""Tenants remembered; the longest idle is forgotten first, and comes back with a new lease."""

EMPTY_SECONDS = 1.0
"""An account without free tokens is asked for again after this time, or when some are free."""

HEARD_AGAIN_SECONDS = 10.0
"""When the store is back, whoever was not heard of for so long is really gone."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens that a request was counted with."""

    account: str
    tokens: float
    at: float


@dataclass(slots=True)
class _Account:
    budget: int
    lease: int
    credit: float  # lent and not used; below 0: used and not booked
    debt: float  # given without asking, to be booked
    own: SlidingWindow  # what this replica let be used
    unbooked: SlidingWindow  # of that, while the store was away
    used_at: float
    empty_until: float = 0.0  # no use to ask before
    frees_at: float = 0.0
    asked: tuple[float, float, float] | None = None  # overdraft, debt and unbooked that an ask carries


class Budgets:
    """All tenants' accounts at one replica."""

    def __init__(self, settings: TenantsSettings, replicas: Callable[[], int]) -> None:
        """`replicas`: how many share the budgets, as far as is known now; at least 1."""
        self._settings = settings
        self._budgets = {t.name: t.budget_tokens for t in settings.known if t.budget_tokens is not None}
        self._replicas = replicas
        self._sharing = 1  # replicas, as believed last with the store there; or more, if more came since
        self._back_at = -math.inf
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self.away = False

    def charge(self, tenant: str, model: str, tokens: float, now: float) -> Charge | float | None:
        """Count a request: its charge; or the seconds after which to try again; None: there is no limit."""
        budget = self._budgets.get(tenant, self._settings.budget_tokens)
        if budget is None:
            return None
        name = f"{model}\0{tenant}" if self._settings.budget_per_model else tenant
        account = self._account(name, budget, now)
        if self.away:
            self._sharing = max(self._sharing, self._replicas())
            share = budget / self._sharing
            if account.own.used(now) >= share:
                return account.own.frees_in(now)
        elif account.credit <= 0:
            return max(0.0, account.frees_at - now)
        account.used_at = now
        self._use(account, tokens, now)
        return Charge(name, tokens, now)

    def correct(self, charge: Charge, tokens: float, now: float) -> None:
        """The request has really used so many tokens."""
        account = self._accounts.get(charge.account)
        if account is not None:
            self._use(account, tokens - charge.tokens, now)

    def asks(self, now: float) -> list[LeaseAsk]:
        """What the store must be asked now. Then comes `lent` or `lost`, before the next call."""
        idle = now - self._settings.budget_window_seconds * (1 + 1 / BUCKETS)
        for name in [name for name, account in self._accounts.items() if account.used_at <= idle]:
            del self._accounts[name]
        found = []
        for name, account in self._accounts.items():
            overdraft = max(0.0, -account.credit)
            wants = int(account.lease - max(0.0, account.credit))
            unbooked = account.unbooked.used(now)
            debt = int(account.debt + overdraft + unbooked)
            if debt == 0 and (wants == 0 or (wants > 0 and now < account.empty_until)):
                continue
            if wants < 0:
                account.credit += wants  # gone, even if no answer comes: better too little than twice
            account.asked = (overdraft, account.debt, unbooked)
            found.append(LeaseAsk(name, debt, wants, account.budget, self._settings.budget_window_seconds))
        return found

    def lent(self, ask: LeaseAsk, lease: Lease, now: float) -> None:
        """The store's answer to `ask`."""
        account = self._accounts.get(ask.account)
        if account is None or account.asked is None:
            return
        overdraft, debt, unbooked = account.asked
        account.asked = None
        account.credit += overdraft + lease.granted
        account.debt -= debt
        account.unbooked.take_back(unbooked)
        account.frees_at = account.empty_until = 0.0
        if lease.granted < ask.wants:
            account.frees_at = now + lease.frees_in
            account.empty_until = now + min(lease.frees_in, EMPTY_SECONDS)

    def lost(self) -> None:
        """The store does not answer: replicas, who hear of each other through it, will seem to be gone."""
        self.away = True
        self._sharing = max(self._sharing, self._replicas())

    def found(self, now: float) -> None:
        """The store answers."""
        if self.away:
            self.away, self._back_at = False, now
        known = self._replicas()
        settled = now >= self._back_at + HEARD_AGAIN_SECONDS
        self._sharing = known if settled else max(self._sharing, known)

    def _use(self, account: _Account, tokens: float, now: float) -> None:
        account.own.add(tokens, now)
        if self.away:
            account.unbooked.add(tokens, now)
        else:
            account.credit -= tokens

    def _account(self, name: str, budget: int, now: float) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            window = self._settings.budget_window_seconds
            lease = max(1, int(budget * self._settings.lease_share))
            account = _Account(budget, lease, lease, lease, SlidingWindow(window), SlidingWindow(window), now)
            self._accounts[name] = account
            if len(self._accounts) > ACCOUNTS_MAX:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(name)
        return account
