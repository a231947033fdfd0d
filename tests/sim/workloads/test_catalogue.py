from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from fleet.errors import ConfigError
from sim.workloads import NAMES, PUBLISHED, build
from sim.workloads.load import busy_fraction

if TYPE_CHECKING:
    from pathlib import Path

TRACE = b'{"timestamp": %d, "input_length": 600, "output_length": 9, "hash_ids": [1, %d]}\n'


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"".join(TRACE % (at, at) for at in (3000, 0, 9000, 0)))
    return str(path)


def test_the_generated_workloads_are_those_that_comparisons_name() -> None:
    assert NAMES == ("groups", "chat", "agents", "long_mix", "batch_mix")


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_the_same_for_the_same_seed_and_another_for_another(name: str) -> None:
    assert build(name, 1) == build(name, 1)
    assert build(name, 1) != build(name, 2)


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_numbered_by_arrival_and_whole(name: str) -> None:
    jobs = build(name, 3)
    assert [job.id for job in jobs] == list(range(len(jobs)))
    assert all(a.arrival <= b.arrival for a, b in pairwise(jobs))
    assert all(len(job.blocks) == job.prompt_tokens // job.block_tokens for job in jobs)
    assert len({job.block_tokens for job in jobs}) == 1
    assert all(job.output_tokens >= 1 for job in jobs)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_fleet_is_about_half_busy_at_any_seed(name: str) -> None:
    for seed in range(1, 6):
        assert 0.38 < busy_fraction(build(name, seed)) < 0.5


@pytest.mark.parametrize("name", [*NAMES, "trace"])
def test_speedup_divides_arrivals_and_changes_nothing_else(name: str, trace: str) -> None:
    name = trace if name == "trace" else name
    plain, fast = build(name, 1), build(name, 1, 2.5)
    assert [job.arrival / 2.5 for job in plain] == [job.arrival for job in fast]
    assert [(job.blocks, job.session, job.output_tokens) for job in plain] == [
        (job.blocks, job.session, job.output_tokens) for job in fast
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_can_be_named(name: str) -> None:
    assert len(build(name, 1)) > 2000


def test_a_trace_is_named_by_its_path_and_ordered_by_arrival(trace: str, tmp_path: Path) -> None:
    jobs = build(trace, 1)
    assert [int(job.arrival // 3) for job in jobs] == [0, 0, 1, 3]
    assert jobs != build(trace, 2)
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes((tmp_path / "trace.jsonl").read_bytes())
    assert build(str(moved), 1) == jobs


@pytest.mark.parametrize("name", ["gruops", "", "trace.json", "sim"])
def test_an_unknown_name_is_told_in_one_line_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(name, 1)
    message = str(error.value)
    assert message.startswith(f"workload is {name!r}: expected groups, chat, agents, long_mix, batch_mix")
    assert ".jsonl" in message
    assert "\n" not in message


@pytest.mark.parametrize("speedup", [0, -1, float("nan"), float("inf")])
def test_a_speedup_that_is_none_is_refused(speedup: float) -> None:
    with pytest.raises(ConfigError, match=r"speedup is .*: expected a number above 0"):
        build("groups", 1, speedup)
