from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.admission.fairness import MEMORY_SECONDS, TENANTS_MAX, Shares


def test_whoever_asks_for_least_loses_nothing_and_whoever_asks_for_most_loses_most() -> None:
    shares = Shares({})
    for tenant, tokens in (("small", 100.0), ("middle", 400.0), ("large", 1500.0)):
        shares.ask(tenant, tokens, 0.0)
    denied = {tenant: shares.denied(tenant, 0.4, 0.0) for tenant in ("small", "middle", "large")}
    # 1200 of 2000 are left: 100 and 400 are less than a third of it, 700 remain for the large one.
    assert denied == {"small": 0, "middle": 0, "large": pytest.approx(800 / 1500)}


def test_weights_say_how_much_is_fair() -> None:
    shares = Shares({"a": 3.0})
    shares.ask("a", 1000.0, 0.0)
    shares.ask("b", 1000.0, 0.0)
    # 1000 of 2000 are left: 750 and 250.
    assert shares.denied("a", 0.5, 0.0) == pytest.approx(0.25)
    assert shares.denied("b", 0.5, 0.0) == pytest.approx(0.75)


@given(
    asked=st.lists(st.tuples(st.floats(1, 1e6), st.floats(0.1, 10)), min_size=1, max_size=8),
    share=st.floats(0, 0.999),
)
def test_what_is_denied_adds_up_to_the_share_and_nobody_gets_more_than_asked(
    asked: list[tuple[float, float]], share: float
) -> None:
    shares = Shares({f"t{n}": weight for n, (_, weight) in enumerate(asked)})
    for n, (tokens, _) in enumerate(asked):
        shares.ask(f"t{n}", tokens, 0.0)
    denied = [shares.denied(f"t{n}", share, 0.0) for n in range(len(asked))]
    assert all(0 <= d <= 1 for d in denied)
    total = sum(tokens for tokens, _ in asked)
    lost = sum(d * tokens for d, (tokens, _) in zip(denied, asked, strict=True))
    assert lost == pytest.approx(share * total, abs=0.01 * total)
    got = [(tokens * (1 - d) / w, d) for d, (tokens, w) in zip(denied, asked, strict=True)]
    highest = max(g for g, _ in got)
    assert all(g == pytest.approx(highest, rel=0.02) for g, d in got if d > 0.01)


def test_what_was_asked_long_ago_counts_no_longer() -> None:
    shares = Shares({})
    shares.ask("before", 1e6, 0.0)
    shares.ask("now", 1000.0, 20 * MEMORY_SECONDS)
    assert shares.denied("now", 0.5, 20 * MEMORY_SECONDS) == pytest.approx(0.5, abs=0.01)


def test_remembers_so_many_tenants_and_counts_the_rest_together() -> None:
    shares = Shares({})
    for n in range(TENANTS_MAX + 500):
        shares.ask(f"t{n}", 10.0, 0.0)
    assert len({shares.account(f"t{n}") for n in range(TENANTS_MAX + 500)}) == TENANTS_MAX + 1
