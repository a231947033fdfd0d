from __future__ import annotations

from itertools import groupby

import pytest

from routing_plan import (
    BURST,
    CASES,
    EXPERIMENTS,
    PEERS,
    PLAIN,
    SLOWDOWN,
    SPEEDUPS,
    plan,
    policies_of,
)
from sim import policies, workloads


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_plan_repeats_no_run_and_knows_every_name(experiment: str) -> None:
    runs = plan(experiment)
    assert len(set(runs)) == len(runs) > 0
    assert all(policies.make(name) for name in {run.policy for run in runs})
    assert {run.workload for run in runs} <= {"conversation", *workloads.NAMES}


def test_cases_have_every_peer_and_the_plain_ones_and_ours() -> None:
    assert set(policies_of(CASES)) >= {*PEERS, *PLAIN, "kvpilot", "kvpilot_true_rates"}


def test_runs_on_the_same_jobs_follow_one_another() -> None:
    runs = plan(CASES)
    groups = [key for key, _ in groupby(runs, lambda run: (run.engine, run.workload, run.speedup, run.seed))]
    assert len(set(groups)) == len(groups)


def test_a_choice_leaves_only_what_was_chosen() -> None:
    runs = plan(CASES, ["lmetric"], engines=["variant"], fleets=["mixed8"], workloads=["chat"], seeds=[7])
    assert [(run.engine, run.speedup, run.policy, run.seed) for run in runs] == [
        ("variant", speedup, "lmetric", 7) for speedup in SPEEDUPS["variant"]["chat"]
    ]


def test_a_slowdown_is_played_at_high_load_and_a_burst_on_one_workload() -> None:
    assert {run.speedup for run in plan(SLOWDOWN) if run.workload == "conversation"} == {3.0}
    assert {run.workload for run in plan(BURST)} == {"groups"}


def test_replicas_are_known_by_their_names() -> None:
    assert policies.is_replicated("kvpilot_replicas4_lag20")
    assert not policies.is_replicated("kvpilot")
