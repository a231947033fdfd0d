from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sim.workloads.draws import Source
from sim.workloads.mix import BATCH_MIX, LONG_MIX, Mix, generate
from sim.workloads.prompt import BLOCK_TOKENS

if TYPE_CHECKING:
    from sim.policy import Job


def by_class(plan: Mix) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in generate(plan, Source("t", 1)):
        found[job.workload_class].append(job)
    return found


@pytest.fixture(scope="module")
def long_mix() -> dict[str, list[Job]]:
    return by_class(LONG_MIX)


def test_every_job_says_its_class(long_mix: dict[str, list[Job]]) -> None:
    assert long_mix.keys() == {"interactive", "long", "batch"}
    assert by_class(BATCH_MIX).keys() == {"interactive", "batch"}


def test_questions_about_a_document_share_it_and_nothing_else_does(long_mix: dict[str, list[Job]]) -> None:
    assert LONG_MIX.documents is not None
    documents: dict[str, list[Job]] = defaultdict(list)
    for job in long_mix["long"]:
        documents[job.session].append(job)
    assert max(len(jobs) for jobs in documents.values()) > 3
    seen: Counter[int] = Counter()
    for jobs in documents.values():
        common = (jobs[0].prompt_tokens - LONG_MIX.documents.question) // BLOCK_TOKENS
        assert len({tuple(job.blocks[:common]) for job in jobs}) == 1
        seen.update(jobs[0].blocks[LONG_MIX.documents.system // BLOCK_TOKENS :])
        seen.update(block for job in jobs[1:] for block in job.blocks[common:])
    assert set(seen.values()) == {1}


def test_documents_are_long_and_people_are_not(long_mix: dict[str, list[Job]]) -> None:
    def mean(name: str) -> float:
        return sum(job.prompt_tokens for job in long_mix[name]) / len(long_mix[name])

    assert mean("long") > 30_000 > 10_000 > mean("interactive")


def test_a_batch_sends_all_its_items_within_seconds_behind_one_instruction(
    long_mix: dict[str, list[Job]],
) -> None:
    plan = LONG_MIX.batch
    batches: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for job in long_mix["batch"]:
        batches[tuple(job.blocks[: plan.instruction // BLOCK_TOKENS])].append(job.arrival)
    assert len(batches) == plan.seconds / plan.every
    for arrivals in batches.values():
        assert len(arrivals) == plan.items
        assert max(arrivals) - min(arrivals) <= plan.send


def test_answers_keep_to_what_the_client_asked_for_at_most(long_mix: dict[str, list[Job]]) -> None:
    assert all(
        1 <= job.output_tokens <= (job.output_limit or 0) for jobs in long_mix.values() for job in jobs
    )


def test_a_kind_that_is_left_out_does_not_come() -> None:
    assert "long" not in by_class(replace(LONG_MIX, documents=None))
