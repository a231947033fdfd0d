from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from sim.workloads.agents import Agents, generate
from sim.workloads.draws import Source, Step
from sim.workloads.prompt import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.policy import Job

# The second step lets all tasks end, and none outgrows the context.
PLAN = Agents(tasks=(Step(1, 100), Step(1e-9, 1000)), burst_share=0.2, context=10**7)


def by_session(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.session].append(job)
    return found


@pytest.fixture(scope="module")
def sessions() -> dict[str, list[Job]]:
    return by_session(generate(PLAN, Source("t", 1)))


@pytest.fixture(scope="module")
def bursts(sessions: dict[str, list[Job]]) -> dict[str, list[list[Job]]]:
    """Task and burst number -> the siblings' jobs."""
    found: dict[str, list[list[Job]]] = defaultdict(list)
    for name, jobs in sessions.items():
        if "/" in name:
            found[name.rpartition(".")[0]].append(jobs)
    return found


def test_a_step_begins_with_all_blocks_of_the_step_before(sessions: dict[str, list[Job]]) -> None:
    for jobs in sessions.values():
        for before, after in pairwise(jobs):
            assert after.arrival > before.arrival
            assert after.blocks[: len(before.blocks)] == before.blocks


def test_siblings_start_together(bursts: dict[str, list[list[Job]]]) -> None:
    fewest, most = PLAN.siblings
    assert len(bursts) > 50
    for siblings in bursts.values():
        starts = [jobs[0].arrival for jobs in siblings]
        assert fewest <= len(siblings) <= most
        assert max(starts) - min(starts) <= PLAN.burst_seconds


def test_siblings_share_exactly_what_the_task_held_when_it_called_them(
    sessions: dict[str, list[Job]], bursts: dict[str, list[list[Job]]]
) -> None:
    for name, siblings in bursts.items():
        firsts = [jobs[0] for jobs in siblings]
        parent = [job for job in sessions[name.split("/")[0]] if job.arrival < firsts[0].arrival][-1]
        common = (parent.prompt_tokens + parent.output_tokens) // BLOCK_TOKENS
        assert len({tuple(job.blocks[:common]) for job in firsts}) == 1
        assert tuple(firsts[0].blocks[: len(parent.blocks)]) == parent.blocks
        own = [block for job in firsts for block in job.blocks[common:]]
        assert len(set(own)) == len(own)
        assert {len(jobs) for jobs in siblings} == {PLAN.sibling_steps}


def test_the_task_goes_on_with_the_reports_when_the_last_sibling_is_done(
    sessions: dict[str, list[Job]], bursts: dict[str, list[list[Job]]]
) -> None:
    for name, siblings in bursts.items():
        begun = min(jobs[0].arrival for jobs in siblings)
        later = [job for job in sessions[name.split("/")[0]] if job.arrival > begun]
        if later:
            before = [job for job in sessions[name.split("/")[0]] if job.arrival < begun][-1]
            reports = sum(jobs[-1].output_tokens for jobs in siblings)
            assert later[0].arrival > max(jobs[-1].arrival for jobs in siblings)
            assert later[0].prompt_tokens == before.prompt_tokens + before.output_tokens + reports


def test_tasks_of_a_kind_share_its_system_prompt(sessions: dict[str, list[Job]]) -> None:
    system = PLAN.system // BLOCK_TOKENS
    starts = {tuple(jobs[0].blocks[:system]) for jobs in sessions.values()}
    assert len(starts) == PLAN.kinds


def test_nothing_arrives_after_the_plan_ends_and_nothing_outgrows_the_context() -> None:
    plan = replace(PLAN, tasks=(Step(2, 60),), context=20_000)
    jobs = list(generate(plan, Source("t", 1)))
    assert max(job.arrival for job in jobs) < 60
    assert 18_000 < max(job.prompt_tokens for job in jobs) <= 20_000
