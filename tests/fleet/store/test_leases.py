from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.store.leases import BUCKETS, LeaseAsk, SlidingWindow, lend

WINDOW = 20.0


def ask(wants: int, debt: int = 0, budget: int = 1000) -> LeaseAsk:
    return LeaseAsk("a", debt, wants, budget, WINDOW)


def test_grants_what_is_left_and_says_when_more_will_be() -> None:
    window = SlidingWindow(WINDOW)
    assert lend(window, ask(700), 0.0).granted == 700
    assert lend(window, ask(700), 5.0).granted == 300
    empty = lend(window, ask(700), 6.0)
    assert (empty.granted, empty.used) == (0, 1000)
    assert lend(window, ask(700), 6.0 + empty.frees_in - 0.01).granted == 0
    assert lend(window, ask(700), 6.0 + empty.frees_in).granted == 700


def test_books_debts_whatever_is_left() -> None:
    window = SlidingWindow(WINDOW)
    assert lend(window, ask(10, debt=1500), 0.0) == lend(SlidingWindow(WINDOW), ask(10, debt=1500), 0.0)
    assert lend(window, ask(10), 1.0).used == 1500


def test_takes_back_what_was_not_used() -> None:
    window = SlidingWindow(WINDOW)
    lend(window, ask(600), 0.0)
    lend(window, ask(400), 10.0)
    assert lend(window, ask(-500), 11.0).used == 500
    assert lend(window, ask(1000), 11.0).granted == 500


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.integers(0, 800), st.integers(0, 50)), min_size=1, max_size=40
    )
)
def test_within_any_window_no_more_is_granted_than_the_budget_leaves(
    steps: list[tuple[float, int, int]],
) -> None:
    window = SlidingWindow(WINDOW)
    booked: list[tuple[float, int, int]] = []  # when, granted, debt
    now = 0.0
    for pause, wants, debt in steps:
        now += pause
        booked.append((now, lend(window, ask(wants, debt), now).granted, debt))
    for n, (at, granted, _) in enumerate(booked):
        within = [b for b in booked[: n + 1] if b[0] > at - WINDOW]
        if granted:
            assert sum(g + d for _, g, d in within) <= 1000


def test_nothing_counts_for_longer_than_a_window_and_a_bucket() -> None:
    window = SlidingWindow(WINDOW)
    window.add(100, 0.0)
    assert window.used(WINDOW) == 100
    assert window.used(WINDOW * (1 + 1 / BUCKETS)) == 0
    assert window.frees_in(WINDOW * 2) == 0
