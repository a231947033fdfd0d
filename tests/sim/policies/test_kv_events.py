from __future__ import annotations

from sim.policies.production_stack import ProductionStackLoadAware
from tests.sim.policies.routing import prompt, started


def test_blocks_appear_with_the_first_token_and_not_before() -> None:
    policy = started(ProductionStackLoadAware(), 1)
    policy.place(prompt(4), 0.0)
    assert policy.kv.matched(prompt(4)) == [0]
    policy.first_token(prompt(4), 1.0, 1.0)
    assert policy.kv.matched(prompt(4)) == [400]


def test_a_prompt_that_was_never_computed_leaves_nothing() -> None:
    policy = started(ProductionStackLoadAware(), 1)
    policy.place(prompt(4), 0.0)
    policy.finish(prompt(4), 1.0, None)
    assert policy.kv.matched(prompt(4)) == [0]


def test_blocks_age_from_the_end_of_their_request_in_the_engines_capacity() -> None:
    policy = started(ProductionStackLoadAware(), 1, kv_tokens=800)
    long, short, third = prompt(4, id_=1), prompt(4, 50, id_=2), prompt(4, 90, id_=3)
    for job in (long, short):
        policy.place(job, 0.0)
        policy.first_token(job, 1.0, 1.0)
    policy.finish(short, 2.0, None)
    policy.finish(long, 3.0, None)
    policy.place(third, 4.0)
    policy.first_token(third, 5.0, 5.0)
    assert [policy.kv.matched(job)[0] for job in (long, short, third)] == [400, 0, 400]
