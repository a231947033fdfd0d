from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleet.errors import ConfigError
from sim import policies
from sim.policies.kvpilot import Kvpilot
from sim.policies.lmetric import LMetric
from sim.policies.replicas import Replicas
from sim.policy import Verdict
from sim.simulation import simulate
from tests.sim.small import job, small_fleet

if TYPE_CHECKING:
    from sim.policy import Job, Policy
    from sim.result import Result


def crowd(number: int, apart: float) -> list[Job]:
    return [job(n, 1.0 + n * apart, 600, 5) for n in range(number)]


def spread(result: Result, endpoints: int) -> list[int]:
    return [sum(o.endpoint == index for o in result.outcomes) for index in range(endpoints)]


def ours(number: int, lag: float) -> tuple[Replicas, list[Kvpilot]]:
    routers = [Kvpilot(replica=replica, lag=lag) for replica in range(number)]
    return Replicas(routers, lag), routers


def test_every_replica_has_forgotten_all_requests_at_the_end() -> None:
    policy, routers = ours(4, lag=0.1)
    simulate(crowd(60, 0.1), small_fleet(3), policy, seed=1)
    policy._catch_up(1e9)
    assert [router.in_flight for router in routers] == [0] * 4
    books = [
        state.ledger for router in routers if router._picker for state in router._picker._endpoints.values()
    ]
    assert len(books) == 12
    assert all(book.in_flight == 0 for book in books)


def test_replicas_hear_of_each_others_placements_after_the_lag() -> None:
    policy, routers = ours(2, lag=0.5)
    policy.start(small_fleet(2).endpoints, [64_000] * 2, seed=1)
    policy.place(job(1, 1.0, 600), 1.0)
    assert sorted(router.in_flight for router in routers) == [0, 1]
    policy._catch_up(1.49)
    assert sorted(router.in_flight for router in routers) == [0, 1]
    policy._catch_up(1.5)
    assert [router.in_flight for router in routers] == [1, 1]


def test_what_a_replica_holds_is_placed_by_it_and_heard_of_by_the_others() -> None:
    policy, routers = ours(2, lag=0.5)
    policy.start(small_fleet(1).endpoints, [64_000], seed=1)
    placed = [policy.place(job(n, 1.0, 600), 1.0) for n in range(6)]  # 0.6 s each
    held = placed.count(Verdict.HELD)
    assert 0 < held < 6
    policy._catch_up(1.5)  # they have heard of each other
    sent = [job for n in range(200) for job, _ in policy.dispatch(1.5 + n / 50)]
    assert len(sent) == held
    policy._catch_up(10.0)
    assert [router.in_flight for router in routers] == [6, 6]
    assert [router._room._seconds for router in routers] == [0.0, 0.0]


def test_without_a_lag_replicas_spread_a_crowd_as_one_router_does() -> None:
    jobs = crowd(40, 0.001)
    one = simulate(jobs, small_fleet(4), LMetric(), seed=1)
    four = simulate(jobs, small_fleet(4), Replicas([LMetric() for _ in range(4)], 0.0), seed=1)
    assert spread(four, 4) == spread(one, 4) == [10] * 4


def test_with_a_lag_replicas_run_into_each_other() -> None:
    jobs = crowd(40, 0.001)
    late = simulate(jobs, small_fleet(4), Replicas([LMetric() for _ in range(4)], 1.0), seed=1)
    assert max(spread(late, 4)) > 10


@pytest.mark.parametrize("router", ["kvpilot", "epp_default", "lmetric", "dynamo", "aibrix_prefix_cache"])
def test_replicas_of_a_router_are_made_by_name(router: str) -> None:
    policy = policies.make(policies.replicated(router, 4, 20))
    assert isinstance(policy, Replicas)
    result = simulate(crowd(20, 0.2), small_fleet(2), policy, seed=1)
    assert result.summary()["rejected"] == 0


@pytest.mark.parametrize(
    "name", ["oracle_replicas4_lag20", "nobody_replicas4_lag20", "lmetric_replicas1_lag5"]
)
def test_what_cannot_be_replicated_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        policies.make(name)


def test_a_replicated_policy_scrapes_as_often_as_its_router() -> None:
    policy: Policy = policies.make("epp_default_replicas2_lag5")
    assert policy.scrape_interval == policies.make("epp_default").scrape_interval > 0
