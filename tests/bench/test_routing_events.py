from __future__ import annotations

import pytest

from routing_events import bursts, replicas, slowdowns
from routing_plan import Run


def run(experiment: str, policy: str, seed: int = 1) -> Run:
    return Run(experiment, "standard", "mixed8", "groups", 1.5, seed, policy)


def test_a_slowdown_is_measured_against_the_policy_that_was_told() -> None:
    def figures(mean: float, p90: float) -> dict[str, float | None]:
        return {"ttft_mean_s": mean, "ttft_p90_s": p90, "before_ttft_mean_s": 0.5}

    runs = {
        run("slowdown", "kvpilot", 1): figures(2.0, 4.0),
        run("slowdown", "kvpilot_told", 1): figures(1.0, 4.0),
        run("slowdown", "kvpilot", 2): figures(2.0, 8.0),
        run("slowdown", "kvpilot_told", 2): figures(4.0, 4.0),
    }
    (found,) = slowdowns(runs)
    assert found.mean == pytest.approx(1.0)
    assert found.p90 == pytest.approx(2**0.5)
    assert found.before_ttft_mean_s == pytest.approx(0.5)
    assert found.seeds == 2


def test_a_slowdown_that_nobody_was_told_of_has_no_ratio() -> None:
    names = ("ttft_mean_s", "ttft_p90_s", "before_ttft_mean_s")
    alone = {run("slowdown", "kvpilot"): dict.fromkeys(names, 1.0)}
    (found,) = slowdowns(alone)
    assert (found.mean, found.ttft_mean_s) == (None, 1.0)


def test_a_burst_shows_the_worst_seed_and_ours_first() -> None:
    names = ("most_over_fair", "prefilled_on", "ttft_mean_s", "last_token_s", "rejected")
    runs = {
        run("burst", "dynamo"): dict.fromkeys(names, 9.0),
        run("burst", "kvpilot", 1): dict.fromkeys(names, 1.0),
        run("burst", "kvpilot", 2): dict.fromkeys(names, 2.0),
    }
    ours, peer = bursts(runs)
    assert (ours.policy, ours.most_over_fair, ours.prefilled_on) == ("kvpilot", 2.0, 2.0)
    assert peer.policy == "dynamo"
    assert (ours.seeds, peer.seeds) == (2, 1)


def test_replicas_are_measured_against_one_on_the_same_jobs() -> None:
    runs = {
        run("replicas", "kvpilot", 1): {"ttft_mean_s": 1.0, "ttft_p99_s": 2.0},
        run("replicas", "kvpilot_replicas4_lag20", 1): {"ttft_mean_s": 1.1, "ttft_p99_s": 5.0},
        run("replicas", "kvpilot_replicas4_lag20", 2): {"ttft_mean_s": 9.0, "ttft_p99_s": 9.0},
    }
    (found,) = replicas(runs)
    assert found.policy == "kvpilot_replicas4_lag20"
    assert found.mean == pytest.approx(1.1)
    assert found.p99 == pytest.approx(2.5)


def replicated(policy: str, mean: float, seed: int = 1, rejected: float = 0) -> dict[Run, dict[str, float]]:
    figures = {"ttft_mean_s": mean, "ttft_p99_s": mean, "rejected": rejected}
    return {run("replicas", policy, seed): figures}


def test_our_replicas_are_compared_with_the_nearest_peer_under_the_same_lag() -> None:
    runs = {
        **replicated("kvpilot_replicas4_lag100", 2.0),
        **replicated("lmetric_replicas4_lag100", 4.0),
        **replicated("dynamo_replicas4_lag100", 8.0),
        **replicated("dynamo_replicas4_lag20", 1.0),
        **replicated("epp_default_replicas4_lag100", 1.0, rejected=1),
    }
    nearest = {item.policy: item.to_best_peer for item in replicas(runs)}
    assert nearest["kvpilot_replicas4_lag100"] == pytest.approx(0.5)
    assert nearest["lmetric_replicas4_lag100"] is None


def test_replicas_that_rejected_requests_have_no_ratio() -> None:
    runs = {**replicated("kvpilot", 1.0), **replicated("kvpilot_replicas4_lag20", 0.5, rejected=3)}
    (found,) = replicas(runs)
    assert (found.mean, found.p99, found.rejected) == (None, None, 3)
