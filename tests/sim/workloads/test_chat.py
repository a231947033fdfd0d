from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import pytest

from sim.workloads.chat import FIRST_TOKEN_BY_PLAN, TOKEN_BY_PLAN, Chat, generate
from sim.workloads.draws import Source, Step
from sim.workloads.prompt import BLOCK_TOKENS

if TYPE_CHECKING:
    from sim.policy import Job

PLAN = Chat(sessions=(Step(5, 200),))


def sessions(plan: Chat = PLAN) -> list[list[Job]]:
    turns: dict[str, list[Job]] = defaultdict(list)
    for job in generate(plan, Source("t", 1)):
        turns[job.session].append(job)
    return list(turns.values())


def test_a_turn_begins_with_all_blocks_of_the_turn_before() -> None:
    for turns in sessions():
        for before, after in pairwise(turns):
            assert after.blocks[: len(before.blocks)] == before.blocks
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens


def test_a_turn_comes_when_the_answer_before_it_has_come_by_plan() -> None:
    for turns in sessions():
        for before, after in pairwise(turns):
            assert after.arrival > before.arrival + FIRST_TOKEN_BY_PLAN + before.output_tokens * TOKEN_BY_PLAN


def test_sessions_share_no_more_than_their_assistants_system_prompt() -> None:
    system = PLAN.system // BLOCK_TOKENS
    firsts = [tuple(turns[0].blocks) for turns in sessions()]
    assert len({first[:system] for first in firsts}) == PLAN.assistants
    own = [block for first in firsts for block in first[system:]]
    assert len(set(own)) == len(own)


def test_sessions_begin_at_the_planned_rate_and_have_the_planned_turns() -> None:
    found = sessions(replace(PLAN, sessions=(Step(5, 200), Step(1e-9, 1000))))  # time for all to end
    assert len(found) == pytest.approx(5 * 200, rel=0.1)
    assert fmean(len(turns) for turns in found) == pytest.approx(PLAN.turns, rel=0.1)


def test_nothing_arrives_after_the_plan_ends() -> None:
    assert max(turns[-1].arrival for turns in sessions()) < 200


def test_no_prompt_outgrows_the_context() -> None:
    longest = max(job.prompt_tokens for turns in sessions(replace(PLAN, context=6000)) for job in turns)
    assert 5000 < longest <= 6000


def test_every_job_names_its_class_and_what_the_client_asked_for_at_most() -> None:
    jobs = [job for turns in sessions(replace(PLAN, workload_class="interactive")) for job in turns]
    assert {job.workload_class for job in jobs} == {"interactive"}
    assert all(1 <= job.output_tokens <= (job.output_limit or 0) for job in jobs)
