from __future__ import annotations

import random

import pytest

from fleet.errors import ConfigError
from sim.policy import END_NEWS_SECONDS, KV_NEWS_SECONDS, Job, Verdict
from sim.simulation import Slowdown, simulate
from sim.timing import ENGINES
from tests.sim.small import BLOCK, Follower, Recorder, Told, job, small_fleet


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


def test_a_busy_fleet_of_standard_engines_has_the_figures_that_are_published() -> None:
    """What docs/benchmarks.md says of standard engines stands on these."""
    result = simulate(crowd(200), small_fleet(3, kv_tokens=3200), Recorder(by_id), seed=0)
    assert result.summary() == pytest.approx(
        {
            "ttft_mean_s": 1.1722354827792718,
            "ttft_p50_s": 1.0562005123185525,
            "ttft_p90_s": 2.4061964426530693,
            "ttft_p99_s": 3.0711996193772,
            "e2e_mean_s": 3.299840509982267,
            "e2e_p99_s": 6.602849285054992,
            "tpot_mean_s": 0.11278564141211866,
            "token_hit_ratio": 0.61014690848945,
            "rejected": 0,
        },
        rel=1e-9,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_every_job_ends_once_and_the_engines_are_empty_at_the_end(engine: str) -> None:
    jobs = crowd(200)
    policy = Recorder(by_id, scrape_interval=1.0)
    result = simulate(jobs, small_fleet(3, kv_tokens=3200), policy, seed=0, engine=engine)
    ids = [j.id for j in jobs]
    assert [o.job for o in result.outcomes] == ids
    assert sorted(id_ for id_, _, _ in policy.ends) == ids
    assert sorted(id_ for id_, _, _ in policy.first_tokens) == ids
    assert [o.endpoint for o in result.outcomes] == [by_id(j) for j in jobs]
    last = policy.scrapes[-3:]
    assert [(load.kv_blocks_used, load.running, load.waiting) for _, _, load in last] == [(0, 0, 0)] * 3
    assert max(load.waiting for _, _, load in policy.scrapes) > 0, "or nothing was tried"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_seed_gives_the_same_result(engine: str) -> None:
    runs = []
    for _ in range(2):
        policy = Recorder(by_id)
        result = simulate(crowd(100), small_fleet(3), policy, 7, usage_share=0.5, engine=engine)
        runs.append((result, policy.ends))
    assert runs[0] == runs[1]


def test_the_variants_noise_differs_between_seeds_and_the_standard_engine_has_none() -> None:
    ttfts = {
        engine: {
            simulate([job(1, 0.0, 900)], small_fleet(), Recorder(), seed, engine=engine).outcomes[0].ttft
            for seed in range(5)
        }
        for engine in ENGINES
    }
    assert {engine: len(different) for engine, different in ttfts.items()} == {"standard": 1, "variant": 5}


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="standard, variant"):
        simulate([], small_fleet(), Recorder(), seed=0, engine="vllm")


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


def test_a_slowed_endpoint_takes_as_many_times_longer_and_the_others_do_not() -> None:
    jobs = [job(n, 10.0 * n, 500, output=11) for n in range(4)]
    slowdowns = [Slowdown(at=15.0, endpoint=0, factor=1 / 3), Slowdown(at=25.0, endpoint=0, factor=1.0)]
    last_elsewhere = Recorder(lambda j: j.id // 3)
    outcomes = simulate(jobs, small_fleet(2), last_elsewhere, seed=0, slowdowns=slowdowns).outcomes
    assert [o.ttft for o in outcomes] == pytest.approx([0.508, 0.508, 1.508, 0.508])
    assert [o.tpot for o in outcomes] == pytest.approx([0.1, 0.1, 0.3, 0.1])


def test_a_slowdown_reaches_what_already_runs() -> None:
    slowdowns = [Slowdown(at=0.208, endpoint=0, factor=0.5)]
    outcome = simulate([job(1, 0.0, 500)], small_fleet(), Recorder(), 0, slowdowns=slowdowns).outcomes[0]
    assert outcome.ttft == pytest.approx(0.208 + 2 * 0.3)


def test_a_policy_that_can_hear_of_slowdowns_is_told_at_once_while_there_is_work() -> None:
    policy = Told()
    slowdowns = [Slowdown(0.25, 0, 0.5), Slowdown(500.0, 0, 1.0)]
    simulate([job(1, 0.0, 500)], small_fleet(), policy, seed=0, slowdowns=slowdowns)
    assert policy.slowdowns == [(0, 0.5, 0.25)]


@pytest.mark.parametrize(
    ("slowdown", "field"),
    [
        (Slowdown(1.0, 1, 0.5), "endpoint"),
        (Slowdown(1.0, -1, 0.5), "endpoint"),
        (Slowdown(1.0, 0, 0.0), "factor"),
        (Slowdown(-1.0, 0, 0.5), "at"),
    ],
)
def test_a_slowdown_that_makes_no_sense_is_refused(slowdown: Slowdown, field: str) -> None:
    with pytest.raises(ConfigError, match=f"slowdown: {field} is"):
        simulate([], small_fleet(), Recorder(), seed=0, slowdowns=[slowdown])


def test_what_engines_store_and_evict_is_heard_of_a_little_later() -> None:
    first, second = job(1, 0.0, 2 * BLOCK), job(2, 10.0, 3 * BLOCK)
    policy = Follower()
    simulate([first, second], small_fleet(kv_tokens=4 * BLOCK), policy, 0, kv_events=True)
    begun = round(10.0 + KV_NEWS_SECONDS, 6)
    assert policy.heard == [
        (0, round(0.008 + 0.128 + KV_NEWS_SECONDS, 6), "stored", first.blocks),
        (0, begun, "removed", first.blocks[::-1]),  # its answer needs a block, too
        (0, round(begun + 0.008 + 0.192, 6), "stored", second.blocks),
    ]


def test_an_answers_blocks_are_told_of_where_a_later_prompt_names_them() -> None:
    named = [
        job(1, 0.0, 2 * BLOCK, output=BLOCK, content="chat", session="s"),
        job(2, 60.0, 5 * BLOCK, content="chat", session="s"),
    ]
    policy = Follower()
    simulate(named, small_fleet(), policy, seed=0, kv_events=True)
    assert [blocks for _, _, _, blocks in policy.heard] == [
        named[1].blocks[:2],
        named[1].blocks[2:3],
        named[1].blocks[3:],
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_twin_fed_by_events_holds_what_the_engines_hold(engine: str) -> None:
    jobs = crowd(300)
    policy = Follower(by_id)
    size = 1920
    simulate(jobs, small_fleet(3, kv_tokens=size), policy, 0, engine=engine, kv_events=True)
    assert any(what == "removed" for _, _, what, _ in policy.heard), "or nothing was tried"
    assert all(0 < len(twin) <= size // BLOCK for twin in policy.twins.values())
    probes = [job(1000 + n, 9000.0, 900, content=n % 5) for n in range(15)]
    for probe in probes:
        twin = policy.twins[by_id(probe)]
        found = next((n for n, block in enumerate(probe.blocks) if block not in twin), len(probe.blocks))
        again = simulate([*jobs, probe], small_fleet(3, kv_tokens=size), Recorder(by_id), 0, engine=engine)
        assert again.outcomes[-1].cached_tokens == found * BLOCK


def test_nothing_is_told_of_caches_unless_asked() -> None:
    policy = Follower()
    simulate(crowd(30), small_fleet(kv_tokens=1920), policy, seed=0)
    assert policy.heard == []


class Patient(Recorder):
    """Holds every request, and lets them go to the first endpoint in the order in which they came."""

    dispatch_interval = 0.5

    def place(self, job: Job, now: float) -> int | Verdict | None:
        assert now == job.arrival
        self.waiting = [*getattr(self, "waiting", []), job]
        return Verdict.HELD

    def dispatch(self, now: float) -> list[tuple[Job, int | None]]:
        first, *self.waiting = self.waiting
        assert now > first.arrival
        return [(first, None if first.session == "refused" else 0)]


def test_a_held_request_goes_when_the_policy_says_and_its_wait_counts() -> None:
    jobs = [job(0, 1.0, 64), job(1, 1.1, 64, session="refused"), job(2, 1.2, 64)]
    result = simulate(jobs, small_fleet(), Patient(), seed=1)
    alone = simulate(jobs[:1], small_fleet(), Recorder(), seed=1).outcomes[0].ttft
    assert [outcome.endpoint for outcome in result.outcomes] == [0, None, 0]
    waits = [outcome.ttft - alone for outcome in result.outcomes if outcome.endpoint is not None]
    assert waits == pytest.approx([0.5, 1.3])  # at 1.5 and at 2.5


def test_a_policy_that_holds_must_be_able_to_dispatch() -> None:
    class Forgetful(Recorder):
        def place(self, job: Job, now: float) -> int | Verdict | None:
            del job, now
            return Verdict.HELD

    with pytest.raises(TypeError, match="dispatch"):
        simulate([job(0, 1.0, 64)], small_fleet(), Forgetful(), seed=1)
