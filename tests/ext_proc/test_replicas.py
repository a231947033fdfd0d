from __future__ import annotations

import pytest

from ext_proc.replicas import SILENCE_SECONDS, Replicas

ADDRESSES = [f"10.0.0.{n}:8000" for n in range(100)]


def heard(name: str, others: list[str], lag: float = 0.02) -> Replicas:
    replicas = Replicas(name)
    for other in others:
        replicas.heard(other, 100.0 - lag, 100.0)
    return replicas


def test_whoever_is_alone_owns_every_endpoint_and_misses_nothing() -> None:
    alone = Replicas("a")
    assert all(alone.owns(address) for address in ADDRESSES)
    assert alone.unseen(arrivals=1000.0) == 0.0


def test_every_endpoint_has_one_owner_and_each_replica_about_its_share() -> None:
    names = ["a", "b", "c", "d"]
    replicas = {name: heard(name, [other for other in names if other != name]) for name in names}
    owners = [[name for name in names if replicas[name].owns(address)] for address in ADDRESSES]
    assert all(len(owner) == 1 for owner in owners)
    assert all(10 <= sum(owner == [name] for owner in owners) <= 40 for name in names)


def test_when_a_replica_leaves_only_its_endpoints_change_hands() -> None:
    three = heard("a", ["b", "c"])
    before = {address for address in ADDRESSES if three.owns(address)}
    three.heard("b", 105.0, 105.0)
    three.expire(100.0 + SILENCE_SECONDS)
    after = {address for address in ADDRESSES if three.owns(address)}
    assert before < after
    assert after == {address for address in ADDRESSES if heard("a", ["b"]).owns(address)}


def test_what_is_unseen_grows_with_the_lag_and_the_others_part_of_the_arrivals() -> None:
    assert heard("a", ["b"], lag=0.1).unseen(arrivals=40.0) == pytest.approx(40 * 0.1 / 2)
    assert heard("a", ["b", "c", "d"], lag=0.02).unseen(arrivals=40.0) == pytest.approx(40 * 0.02 * 3 / 4)


def test_the_lag_follows_what_is_seen_and_one_straggler_does_not_matter() -> None:
    replicas = heard("a", ["b"], lag=0.02)
    replicas.heard("b", 100.0, 101.0)
    assert replicas.unseen(arrivals=2.0) < 0.08
    for n in range(100):
        replicas.heard("b", 102.0 + n, 102.1 + n)
    assert replicas.unseen(arrivals=2.0) == pytest.approx(0.1, rel=0.02)


def test_clocks_that_disagree_make_no_negative_lag() -> None:
    replicas = Replicas("a")
    replicas.heard("b", placed_at=10.5, now=10.0)
    assert replicas.unseen(arrivals=100.0) == 0.0


def test_counts_those_that_were_heard_of_lately_and_itself() -> None:
    replicas = Replicas("a")
    assert replicas.count == 1
    replicas.heard("b", 0.0, 0.0)
    replicas.heard("c", 5.0, 5.0)
    assert replicas.count == 3
    replicas.expire(SILENCE_SECONDS)
    assert replicas.count == 2
