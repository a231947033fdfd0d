from __future__ import annotations

import random

import pytest

from fleet.errors import ConfigError
from sim.policies import FACTORIES, NAMES, make
from sim.policies.router import Router
from sim.policy import Job, Policy
from tests.sim.policies.routing import KV_TOKENS, endpoints, load

ENDPOINTS = 5
DRAWS_NOTHING = {"round_robin", "session_hash", "bounded_hash"}


def jobs(count: int) -> list[Job]:
    """Conversations that share beginnings."""
    draw = random.Random(7)
    made = []
    for id_ in range(count):
        talk, blocks = draw.randrange(8), draw.randrange(1, 30)
        names = [talk * 1000 + n for n in range(blocks)]
        made.append(Job(id_, id_ * 0.1, blocks * 100 + 30, 10, names, 100, session=f"s{talk}"))
    return made


def play(policy: Policy, seed: int) -> list[object]:
    """A short run: first tokens three requests later, ends ten later, and scrapes now and then."""
    policy.start(endpoints(ENDPOINTS), [KV_TOKENS] * ENDPOINTS, seed)
    placed: list[object] = []
    work = jobs(150)
    for n, job in enumerate(work):
        now = job.arrival
        placed.append(policy.place(job, now))
        if n >= 3:
            policy.first_token(work[n - 3], now, now)
        if n >= 10:
            policy.finish(work[n - 10], now, None)
        if n % 4 == 0 and policy.scrape_interval:
            for index in range(ENDPOINTS):
                policy.scrape(index, load(index * n % 7, n % 90), now)
    for job in work[-3:]:
        policy.first_token(job, 100.0, 100.0)
    for job in work[-10:]:
        policy.finish(job, 101.0, None)
    return placed


def test_every_policy_of_the_comparison_has_its_name() -> None:
    assert set(NAMES) >= {
        *("round_robin", "random", "least_requests", "power_of_two", "session_hash", "bounded_hash"),
        *("epp_default", "epp_prefix_affinity", "sglang_cache_aware", "dynamo", "aibrix_prefix_cache"),
        *("production_stack_loadaware", "ray_prefix_aware", "lmetric", "kvpilot", "kvpilot_true_rates"),
        "oracle",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_a_fresh_policy(name: str) -> None:
    assert make(name) is not make(name)


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'fastest'.*round_robin.*lmetric.*kvpilot_true_rates"):
        make("fastest")


@pytest.mark.parametrize("name", FACTORIES)
def test_a_seed_decides_everything(name: str) -> None:
    first = play(make(name), seed=1)
    assert first == play(make(name), seed=1)
    assert set(first) <= set(range(ENDPOINTS))
    assert (first == play(make(name), seed=2)) == (name in DRAWS_NOTHING)


@pytest.mark.parametrize("name", FACTORIES)
def test_the_books_are_empty_when_all_is_over(name: str) -> None:
    policy = FACTORIES[name]()
    assert isinstance(policy, Router)
    play(policy, seed=3)
    assert policy.in_flight == [0] * ENDPOINTS
    assert policy.prefill == [0] * ENDPOINTS


@pytest.mark.parametrize("name", sorted(set(FACTORIES) - {"epp_default"}))
def test_only_the_default_epp_reads_gauges(name: str) -> None:
    assert make(name).scrape_interval == 0


@pytest.mark.parametrize("name", FACTORIES)
def test_a_router_in_the_path_of_the_answer_hears_at_once(name: str) -> None:
    assert make(name).feedback_delay == 0
