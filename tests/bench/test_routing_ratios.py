from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from routing_plan import OURS, PEERS, Run
from routing_ratios import (
    AFTER_500,
    E2E_MEAN,
    METRICS,
    P99,
    best_peer,
    geometric_mean,
    rows,
    totals,
)

if TYPE_CHECKING:
    from routing_runs import Figures


def run(policy: str, seed: int = 1, **other: str) -> Run:
    case: dict[str, str] = {"engine": "standard", "fleet": "mixed8", "workload": "chat", **other}
    return Run("cases", case["engine"], case["fleet"], case["workload"], 1.15, seed, policy)


def figures(time: float, **other: float | None) -> Figures:
    return {**dict.fromkeys((*METRICS, AFTER_500), time), "token_hit_ratio": 0.5, "rejected": 0, **other}


def test_the_best_peer_is_chosen_for_each_metric_and_seed() -> None:
    runs = {
        run(OURS, 1): figures(1.0),
        run("dynamo", 1): figures(2.0, ttft_p99_s=8.0),
        run("lmetric", 1): figures(4.0),
        run(OURS, 2): figures(1.0),
        run("dynamo", 2): figures(16.0),
        run("lmetric", 2): figures(8.0, ttft_p99_s=1.0),
    }
    (row,) = rows(runs)
    assert row.ratios[E2E_MEAN] == pytest.approx(math.sqrt(1 / 2 * 1 / 8))
    assert row.ratios[P99] == pytest.approx(math.sqrt(1 / 4 * 1))
    assert (row.seeds, row.peers) == (2, 2)


def test_a_peer_that_rejected_is_nobodys_best() -> None:
    by_policy = {"dynamo": figures(0.1, rejected=1), "lmetric": figures(2.0), OURS: figures(0.01)}
    assert best_peer(by_policy, P99) == ("lmetric", 2.0)
    assert best_peer({"dynamo": figures(0.1, rejected=1)}, P99) is None


def test_plain_policies_are_no_peers_and_a_figure_nobody_measured_is_no_best() -> None:
    by_policy = {"round_robin": figures(0.1), "epp_default": figures(0.1, ttft_p99_s=None)}
    assert best_peer(by_policy, P99) is None


def test_the_name_shown_is_the_peer_that_is_best_for_most_seeds() -> None:
    runs = {run(OURS, seed): figures(1.0) for seed in (1, 2, 3)}
    runs |= {run("lmetric", seed): figures(2.0) for seed in (1, 2, 3)}
    runs |= {run("dynamo", 1): figures(0.5), run("dynamo", 2): figures(9), run("dynamo", 3): figures(9)}
    (row,) = rows(runs)
    assert row.best_peer == "lmetric"


def test_rates_are_compared_after_the_first_requests_and_the_oracle_over_all() -> None:
    runs = {
        run(OURS): figures(1.0, after_500_ttft_mean_s=1.04),
        run("kvpilot_true_rates"): figures(5.0, after_500_ttft_mean_s=1.0),
        run("oracle"): figures(0.5),
    }
    (row,) = rows(runs)
    assert row.to_true_rates == pytest.approx(1.04)
    assert row.to_oracle == pytest.approx(2.0)
    assert row.ratios[P99] is None
    assert row.best_peer == ""


def test_a_case_in_which_ours_rejected_a_request_has_no_ratio_and_is_counted_as_failed() -> None:
    others = ("lmetric", "oracle", "kvpilot_true_rates")
    runs = {run(OURS, 1): figures(0.1, rejected=1), run(OURS, 2): figures(0.1)}
    runs |= {run(name, seed): figures(1.0) for name in others for seed in (1, 2)}
    runs |= {run(OURS, workload="agents"): figures(0.5), run("lmetric", workload="agents"): figures(1.0)}
    failed, served = rows(runs)
    assert failed.case.workload == "chat"
    assert {*failed.ratios.values(), *failed.against.values()} == {None}
    assert (failed.to_oracle, failed.to_true_rates, failed.rejected) == (None, None, 1)
    (total,) = totals([failed, served])
    assert total.failed == 1
    assert total.ratios[P99] == pytest.approx(0.5)


def test_the_worst_case_of_learned_rates_is_named() -> None:
    runs: dict[Run, Figures] = {}
    for workload, ratio in (("chat", 0.9), ("agents", 1.3), ("long_mix", 1.1)):
        runs[run(OURS, workload=workload)] = figures(ratio)
        runs[run("kvpilot_true_rates", workload=workload)] = figures(1.0)
    (total,) = totals(rows(runs))
    assert total.worst_to_true_rates is not None
    case, ratio = total.worst_to_true_rates
    assert case.workload == "agents"
    assert ratio == pytest.approx(1.3)


def test_totals_are_geometric_means_over_the_cases_of_an_engine_and_fleet() -> None:
    runs: dict[Run, Figures] = {}
    for workload, ratio in (("chat", 0.5), ("agents", 2.0)):
        runs |= {run(OURS, workload=workload): figures(ratio), run(PEERS[0], workload=workload): figures(1)}
    runs |= {run(OURS, fleet="uniform8"): figures(3.0), run(PEERS[0], fleet="uniform8"): figures(1.0)}
    mixed, uniform = totals(rows(runs))
    assert (mixed.fleet, mixed.cases, uniform.fleet, uniform.cases) == ("mixed8", 2, "uniform8", 1)
    assert mixed.ratios[P99] == pytest.approx(1.0)
    assert mixed.worst_mean == pytest.approx(2.0)


def test_a_loss_counts_beyond_two_percent_to_those_we_must_not_lose_to() -> None:
    runs = {
        run(OURS): figures(1.0),
        run("round_robin"): figures(0.99),
        run("lmetric"): figures(0.9, ttft_p99_s=1.5),
        run("dynamo"): figures(0.1),
    }
    (total,) = totals(rows(runs))
    ((case, policy, metric, ratio),) = total.losses
    assert (case.workload, policy, metric) == ("chat", "lmetric", "ttft_mean_s")
    assert ratio == pytest.approx(1 / 0.9)


def test_rows_are_in_the_order_of_the_plan_whatever_ended_first() -> None:
    cases = [("variant", "mixed8"), ("standard", "uniform8"), ("standard", "mixed8")]
    runs = {run(OURS, engine=engine, fleet=fleet): figures(1.0) for engine, fleet in cases}
    assert [(row.case.engine, row.case.fleet) for row in rows(runs)] == list(reversed(cases))


def test_other_experiments_and_cases_without_ours_are_no_rows() -> None:
    burst = Run("burst", "standard", "mixed8", "groups", 1.15, 1, OURS)
    assert rows({burst: {}, run("dynamo"): figures(1.0)}) == []


def test_a_geometric_mean_leaves_out_what_is_missing() -> None:
    assert geometric_mean([0.5, None, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([None]) is None
