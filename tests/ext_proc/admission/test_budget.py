from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.admission.budget import ACCOUNTS_MAX, EMPTY_SECONDS, HEARD_AGAIN_SECONDS, Budgets, Charge
from fleet.settings import TenantSettings, TenantsSettings
from fleet.store.leases import BUCKETS, SlidingWindow, lend

if TYPE_CHECKING:
    from fleet.store.leases import Lease, LeaseAsk

BUDGET, WINDOW, LEASE_SHARE, LARGEST = 10_000, 60.0, 0.05, 2_000
LEASE = BUDGET * LEASE_SHARE
SETTINGS = TenantsSettings(budget_tokens=BUDGET, budget_window_seconds=WINDOW, lease_share=LEASE_SHARE)


class Bank:
    """The common account of all replicas, on the test's clock."""

    def __init__(self) -> None:
        self.windows: dict[str, SlidingWindow] = {}

    def lend(self, ask: LeaseAsk, now: float) -> Lease:
        return lend(self.windows.setdefault(ask.account, SlidingWindow(ask.window)), ask, now)

    def serve(self, budgets: Budgets, now: float) -> None:
        for ask in budgets.asks(now):
            budgets.lent(ask, self.lend(ask, now), now)
        budgets.found(now)

    def used(self, account: str, now: float) -> float:
        return self.windows[account].used(now)


def alone() -> int:
    return 1


def charged(budgets: Budgets, tokens: float, now: float, tenant: str = "t") -> Charge:
    charge = budgets.charge(tenant, "m", tokens, now)
    assert isinstance(charge, Charge)
    return charge


def spend(budgets: Budgets, bank: Bank, tokens: float, now: float, *, tenant: str = "t") -> float:
    """As many requests of so many tokens as are let in, renewing after each; what they were charged."""
    total = 0.0
    while isinstance(budgets.charge(tenant, "m", tokens, now), Charge):
        total += tokens
        bank.serve(budgets, now)
    return total


def test_without_a_budget_nobody_is_counted() -> None:
    budgets = Budgets(TenantsSettings(known=(TenantSettings(name="limited", budget_tokens=10),)), alone)
    assert budgets.charge("other", "m", 1e9, 0.0) is None
    assert isinstance(budgets.charge("limited", "m", 1e9, 0.0), Charge)
    assert isinstance(budgets.charge("limited", "m", 1.0, 0.0), float)


def test_a_tenant_gets_its_budget_and_is_refused_until_the_window_has_passed() -> None:
    budgets, bank = Budgets(SETTINGS, alone), Bank()
    first = spend(budgets, bank, 100, 0.0)
    assert BUDGET <= first <= BUDGET + LEASE + 100
    wait = budgets.charge("t", "m", 100, 1.0)
    assert isinstance(wait, float)
    assert wait == pytest.approx(WINDOW * (1 + 1 / BUCKETS) - 1.0)
    assert spend(budgets, bank, 100, 30.0) == 0
    later = WINDOW * (1 + 1 / BUCKETS) + EMPTY_SECONDS
    bank.serve(budgets, later)
    assert spend(budgets, bank, 100, later) >= BUDGET - LEASE


def test_tenants_and_where_it_is_said_models_have_accounts_of_their_own() -> None:
    for per_model, second in ((False, 0), (True, BUDGET)):
        settings = SETTINGS.model_copy(update={"budget_per_model": per_model})
        budgets, bank = Budgets(settings, alone), Bank()
        spend(budgets, bank, 100, 0.0)
        assert spend(budgets, bank, 100, 0.0, tenant="other") >= BUDGET
        got = 0
        while isinstance(budgets.charge("t", "another", 100, 0.0), Charge):
            got += 100
            bank.serve(budgets, 0.0)
        assert got >= second
        assert (got > 0) == per_model


def test_what_was_expected_gives_way_to_what_was_used() -> None:
    budgets, bank = Budgets(SETTINGS, alone), Bank()
    first = charged(budgets, 400, 0.0)
    bank.serve(budgets, 0.0)
    budgets.correct(first, 100, 1.0)
    bank.serve(budgets, 1.0)
    assert bank.used("t", 1.0) == 100 + LEASE  # that, and what is lent for the next
    second = charged(budgets, 400, 2.0)
    budgets.correct(second, 1400, 3.0)
    bank.serve(budgets, 3.0)
    assert bank.used("t", 3.0) == 1500 + LEASE


@given(
    replicas=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.floats(0, 4), st.integers(0, 4), st.integers(1, LARGEST), st.integers(0, 2)),
        min_size=1,
        max_size=120,
    ),
)
def test_all_replicas_together_are_never_over_the_budget_by_more_than_is_stated(
    replicas: int, steps: list[tuple[float, int, int, int]]
) -> None:
    """Requests in any order at any replica; answers of the store come at once, late, or not."""
    bank = Bank()
    all_budgets = [Budgets(SETTINGS, lambda: replicas) for _ in range(replicas)]
    late: dict[int, list[tuple[LeaseAsk, Lease]]] = {}
    charges: list[tuple[float, float]] = []
    now = 0.0
    for pause, which, tokens, store in steps:
        now += pause
        n = which % replicas
        budgets = all_budgets[n]
        if isinstance(budgets.charge("t", "m", tokens, now), Charge):
            charges.append((now, tokens))
        for ask, lease in late.pop(n, []):
            budgets.lent(ask, lease, now)
        if store == 1:
            bank.serve(budgets, now)
        elif store == 2:
            late[n] = [(ask, bank.lend(ask, now)) for ask in budgets.asks(now)]
    bound = BUDGET + replicas * (LEASE + LARGEST)
    for at, _ in charges:
        assert sum(tokens for when, tokens in charges if at - WINDOW < when <= at) <= bound


@given(
    replicas=st.integers(1, 5),
    requests=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4), st.integers(1, 500)), max_size=150),
)
def test_while_the_store_is_away_each_replica_keeps_to_its_share(
    replicas: int, requests: list[tuple[float, int, int]]
) -> None:
    all_budgets = [Budgets(SETTINGS, lambda: replicas) for _ in range(replicas)]
    charges: list[tuple[float, int, int]] = []
    now = 0.0
    for budgets in all_budgets:
        budgets.lost()
    for pause, which, tokens in requests:
        now += pause
        n = which % replicas
        if isinstance(all_budgets[n].charge("t", "m", tokens, now), Charge):
            charges.append((now, n, tokens))
    for at, replica, _ in charges:
        own = sum(t for when, n, t in charges if n == replica and at - WINDOW < when <= at)
        assert own <= BUDGET / replicas + 500


def test_what_a_replica_let_through_before_the_store_went_away_counts_against_its_share() -> None:
    budgets, bank = Budgets(SETTINGS, lambda: 4), Bank()
    for n in range(20):
        charged(budgets, 200, n * 0.1)
        bank.serve(budgets, n * 0.1)
    budgets.lost()
    assert isinstance(budgets.charge("t", "m", 1, 3.0), float)  # 4000 are more than a quarter of 10,000
    fresh = Budgets(SETTINGS, lambda: 4)
    fresh.lost()
    got = 0
    while isinstance(fresh.charge("t", "m", 100, 3.0), Charge):
        got += 100
    assert got == BUDGET / 4


def granted(budgets: Budgets, now: float) -> float:
    got = 0
    while isinstance(budgets.charge(f"new at {now}", "m", 100, now), Charge):
        got += 100
    return got


def test_the_share_stays_that_of_all_who_were_there_though_nobody_is_heard_of_without_the_store() -> None:
    known = 4
    budgets, bank = Budgets(SETTINGS, lambda: known), Bank()
    bank.serve(budgets, 0.0)
    known = 1
    budgets.lost()
    assert granted(budgets, 20.0) == BUDGET / 4
    known = 5
    assert granted(budgets, 30.0) == BUDGET / 5
    known = 1
    bank.serve(budgets, 40.0)  # back for a moment
    budgets.lost()
    assert granted(budgets, 41.0) == BUDGET / 5
    for now in (50.0, 50.0 + HEARD_AGAIN_SECONDS):
        bank.serve(budgets, now)
    budgets.lost()
    assert granted(budgets, 70.0) == BUDGET


def test_what_was_used_while_the_store_was_away_is_booked_when_it_is_back() -> None:
    budgets, bank = Budgets(SETTINGS, alone), Bank()
    charged(budgets, 100, 0.0)
    bank.serve(budgets, 0.0)
    budgets.lost()
    for n in range(30):
        charged(budgets, 100, 1.0 + n)
    bank.serve(budgets, 32.0)
    assert bank.used("t", 32.0) == 3000 + 100 + LEASE
    assert budgets.asks(32.0) == []  # booked once


def test_asks_for_nothing_where_nothing_is_missing_and_seldom_where_nothing_is_left() -> None:
    budgets, bank = Budgets(SETTINGS, alone), Bank()
    assert budgets.asks(0.0) == []
    spend(budgets, bank, 100, 0.0)
    assert budgets.asks(0.0 + EMPTY_SECONDS / 2) == []
    assert len(budgets.asks(EMPTY_SECONDS)) == 1


def test_forgets_tenants_that_have_been_idle_for_a_window_and_the_longest_idle_of_too_many() -> None:
    budgets, bank = Budgets(SETTINGS, alone), Bank()
    spend(budgets, bank, 100, 0.0)
    budgets.asks(WINDOW * (1 + 1 / BUCKETS))
    assert budgets._accounts == {}
    for n in range(ACCOUNTS_MAX + 5):
        budgets.charge(f"t{n}", "m", 1, 0.0)
    assert len(budgets._accounts) == ACCOUNTS_MAX
    assert "t4" not in budgets._accounts
