from __future__ import annotations

from collections import Counter

import pytest

from sim.workloads.draws import Source, Step
from sim.workloads.groups import PUBLISHED, Groups, generate
from sim.workloads.prompt import BLOCK_TOKENS

PLAN = Groups(groups=7, prompts=3, system=1000, question=500, output=20, steps=(Step(20, 50),))
SYSTEM_BLOCKS = 1000 // BLOCK_TOKENS


def test_members_of_a_group_share_exactly_the_blocks_of_its_system_prompt() -> None:
    prompts = {tuple(job.blocks) for job in generate(PLAN, Source("t", 1))}
    assert len(prompts) == 21
    members = Counter(prompt[:SYSTEM_BLOCKS] for prompt in prompts)
    assert list(members.values()) == [3] * 7
    own = Counter(block for prompt in prompts for block in prompt[SYSTEM_BLOCKS:])
    assert set(own.values()) == {1}


def test_every_prompt_comes_once_before_any_comes_again() -> None:
    jobs = list(generate(PLAN, Source("t", 1)))
    assert len({tuple(job.blocks) for job in jobs[:21]}) == 21
    assert len({tuple(job.blocks) for job in jobs[21:42]}) == 21
    assert [job.blocks for job in jobs[:21]] != [job.blocks for job in jobs[21:42]]


def test_lengths_and_rates_are_those_of_the_plan() -> None:
    jobs = list(generate(PLAN, Source("t", 1)))
    assert {(job.prompt_tokens, job.output_tokens, job.output_limit) for job in jobs} == {(1500, 20, 20)}
    assert len(jobs) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    ("name", "system", "question", "output", "prompts"),
    [
        ("groups_ladder", 6000, 1200, 1000, 750),
        ("groups_nightly", 9500, 500, 1000, 750),
        ("groups_100k", 95_000, 5000, 1000, 50),
        ("groups_high_cache", 2048, 256, 256, 4096),
        ("groups_low_cache", 256, 2048, 256, 4096),
    ],
)
def test_published_shapes_are_as_published(
    name: str, system: int, question: int, output: int, prompts: int
) -> None:
    plan = PUBLISHED[name]
    assert (plan.system, plan.question, plan.output) == (system, question, output)
    assert plan.groups * plan.prompts == prompts


def test_the_ladder_climbs_from_3_to_60_a_second() -> None:
    rates = [step.rate for step in PUBLISHED["groups_ladder"].steps]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (3, 60)
