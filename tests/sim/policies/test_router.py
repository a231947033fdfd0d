from __future__ import annotations

from sim.policies.lmetric import LMetric
from sim.policies.plain import LeastRequests
from tests.sim.policies.routing import prompt, started


def test_prefill_is_owed_until_the_first_token_and_the_request_until_its_end() -> None:
    policy = started(LMetric(), 1)
    job = prompt(4)
    policy.place(job, 0.0)
    assert (policy.in_flight, policy.prefill) == ([1], [400])
    policy.first_token(job, 1.0, 1.0)
    assert (policy.in_flight, policy.prefill) == ([1], [0])
    policy.finish(job, 2.0, None)
    assert (policy.in_flight, policy.prefill) == ([0], [0])


def test_a_request_that_fails_before_its_first_token_gives_everything_back() -> None:
    policy = started(LMetric(), 1)
    policy.place(prompt(4), 0.0)
    policy.finish(prompt(4), 2.0, None)
    assert (policy.in_flight, policy.prefill) == ([0], [0])


def test_news_told_twice_or_of_nobody_changes_nothing() -> None:
    policy = started(LMetric(), 1)
    policy.place(prompt(4), 0.0)
    for _ in range(2):
        policy.first_token(prompt(4), 1.0, 1.0)
    for _ in range(2):
        policy.finish(prompt(4), 1.0, None)
    policy.first_token(prompt(4, id_=99), 1.0, 1.0)
    policy.finish(prompt(4, id_=99), 1.0, None)
    assert (policy.in_flight, policy.prefill) == ([0], [0])


def test_a_new_start_forgets_the_last_run() -> None:
    policy = started(LeastRequests(), 2)
    policy.place(prompt(1), 0.0)
    assert started(policy, 3).in_flight == [0, 0, 0]


def test_the_lowest_of_some_ignores_the_others_and_draws_among_ties() -> None:
    policy = started(LeastRequests(), 4)
    assert {policy.lowest([0, 5, 7, 5], [1, 2, 3]) for _ in range(50)} == {1, 3}
    assert {policy.lowest([(1.0, 2.0), (1.0, 1.0)]) for _ in range(5)} == {1}
