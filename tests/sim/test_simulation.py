from __future__ import annotations

import random

import pytest

from sim.policy import END_NEWS_SECONDS, Job
from sim.simulation import simulate
from tests.sim.small import BLOCK, Recorder, job, small_fleet


def crowd(number: int, seed: int = 1) -> list[Job]:
    """Jobs of mixed sizes that share prefixes and queue up."""
    draw = random.Random(seed)
    return [
        job(n, draw.uniform(0, 20), draw.randint(1, 900), draw.randint(1, 40), content=draw.randrange(5))
        for n in range(number)
    ]


def by_id(job: Job) -> int:
    return job.id % 3


def test_two_requests_at_one_endpoint_take_the_time_computed_by_hand() -> None:
    result = simulate([job(1, 0.0, 100), job(2, 0.1, 200, output=3)], small_fleet(), Recorder(), seed=0)
    first, second = result.outcomes
    assert [first.ttft, first.e2e] == pytest.approx([0.108, 0.108])
    assert first.tpot is None
    # It waits until 0.108, takes 0.208 s itself, and then 0.1 s for each further token.
    assert second.ttft == pytest.approx(0.216)
    assert second.e2e == pytest.approx(0.416)
    assert second.tpot == pytest.approx(0.1)
    assert list(result.busy) == pytest.approx([0.316 / 0.516])


def test_every_job_ends_once_and_the_engines_are_empty_at_the_end() -> None:
    jobs = crowd(200)
    policy = Recorder(by_id, scrape_interval=1.0)
    result = simulate(jobs, small_fleet(3, kv_tokens=3200), policy, seed=0)
    ids = [j.id for j in jobs]
    assert [o.job for o in result.outcomes] == ids
    assert sorted(id_ for id_, _, _ in policy.ends) == ids
    assert sorted(id_ for id_, _, _ in policy.first_tokens) == ids
    assert [o.endpoint for o in result.outcomes] == [by_id(j) for j in jobs]
    last = policy.scrapes[-3:]
    assert [(load.kv_blocks_used, load.running, load.waiting) for _, _, load in last] == [(0, 0, 0)] * 3
    assert max(load.waiting for _, _, load in policy.scrapes) > 0, "or nothing was tried"


def test_the_same_seed_gives_the_same_result() -> None:
    runs = []
    for _ in range(2):
        policy = Recorder(by_id)
        runs.append((simulate(crowd(100), small_fleet(3), policy, 7, usage_share=0.5), policy.ends))
    assert runs[0] == runs[1]


def test_a_hit_shortens_the_first_token_by_what_need_not_be_computed() -> None:
    jobs = [job(1, 0.0, 640, content="a"), job(2, 10.0, 640, content="a"), job(3, 20.0, 640)]
    cold, warm, other = simulate(jobs, small_fleet(), Recorder(), seed=0).outcomes
    assert warm.cached_tokens == 9 * BLOCK  # the last block is computed to answer at all
    assert cold.ttft - warm.ttft == pytest.approx(9 * BLOCK / 1000)
    assert other.ttft == pytest.approx(cold.ttft)


def test_an_answer_that_the_next_prompt_repeats_is_a_hit_too() -> None:
    jobs = [
        job(1, 0.0, 100, output=100, content="chat", session="s"),
        job(2, 60.0, 640, content="chat", session="s"),
    ]
    assert simulate(jobs, small_fleet(), Recorder(), seed=0).outcomes[1].cached_tokens == 3 * BLOCK


def test_refused_and_oversized_requests_are_rejected_and_the_policy_hears_of_the_latter() -> None:
    jobs = [job(1, 0.0, 100), job(2, 0.0, 100), job(3, 5.0, 70_000)]
    policy = Recorder(lambda j: None if j.id == 1 else 0)
    result = simulate(jobs, small_fleet(), policy, seed=0)
    assert [o.endpoint for o in result.outcomes] == [None, 0, None]
    assert result.summary()["rejected"] == 2
    assert [id_ for id_, _, _ in policy.ends] == [2, 3]
    assert [id_ for id_, _, _ in policy.first_tokens] == [2]


def test_news_comes_as_late_as_the_policy_says_and_ends_sooner() -> None:
    policy = Recorder(feedback_delay=0.5)
    simulate([job(1, 0.0, 100, output=21)], small_fleet(), policy, seed=0)
    assert policy.first_tokens == [(1, 0.608, 0.108)]
    assert policy.ends == [(1, round(2.108 + END_NEWS_SECONDS, 6), 0)]


def test_a_short_answers_end_brings_the_news_of_its_first_token() -> None:
    policy = Recorder(feedback_delay=0.5)
    simulate([job(1, 0.0, 100)], small_fleet(), policy, seed=0)
    heard = round(0.108 + END_NEWS_SECONDS, 6)
    assert policy.first_tokens == [(1, heard, 0.108)]
    assert policy.ends == [(1, heard, 0)]


def test_a_policy_without_delay_hears_at_once() -> None:
    policy = Recorder()
    simulate([job(1, 0.0, 100)], small_fleet(), policy, seed=0)
    assert policy.first_tokens == [(1, 0.108, 0.108)]
    assert policy.ends == [(1, 0.108, 0)]


def test_scrapes_come_at_their_interval_while_there_is_work() -> None:
    policy = Recorder(scrape_interval=0.5)
    simulate([job(1, 0.0, 1000), job(2, 0.1, 1000)], small_fleet(), policy, seed=0)
    assert [at for _, at, _ in policy.scrapes] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert [(load.running, load.waiting) for _, _, load in policy.scrapes[:3]] == [(0, 0), (1, 1), (1, 1)]
    load = policy.scrapes[1][2]
    assert (load.at, load.tokens_per_block, load.kv_tokens) == (0.5, BLOCK, 64_000)
    assert policy.kv_tokens == [64_000]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 30, 70), (1.0, 100, 100)])
def test_only_the_given_share_of_answers_tells_its_usage(share: float, least: int, most: int) -> None:
    policy = Recorder(by_id)
    simulate(crowd(100), small_fleet(3), policy, seed=1, usage_share=share)
    assert least <= sum(cached is not None for _, _, cached in policy.ends) <= most


def test_jobs_of_several_block_sizes_are_refused() -> None:
    jobs = [job(1, 0.0, 100), Job(2, 0.0, 100, 1, (), BLOCK + 1)]
    with pytest.raises(ValueError, match="64, 65"):
        simulate(jobs, small_fleet(), Recorder(), seed=0)


def test_no_jobs_give_no_outcomes() -> None:
    result = simulate([], small_fleet(), Recorder(scrape_interval=1.0), seed=0)
    assert result.outcomes == ()
    assert result.summary()["ttft_mean_s"] is None
