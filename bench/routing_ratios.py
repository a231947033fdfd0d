"""How our router compares: ratios to the best peer of each case and seed, and their geometric means. Pure.

A ratio below 1 is a win: all figures compared are times. A run in which a router rejected a request counts
for nobody's best, and a case in which ours rejected one has no ratio: leaving work out is no way to be fast.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from routing_plan import CASES, ENGINES, FLEETS, ORACLE, OURS, PEERS, TRUE_RATES, WORKLOADS, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from routing_runs import Figures

MEAN, P99, E2E_P99, E2E_MEAN = METRICS = ("ttft_mean_s", "ttft_p99_s", "e2e_p99_s", "e2e_mean_s")
AFTER_500 = "after_500_ttft_mean_s"

NEVER_LOSES_TO = ("round_robin", "least_requests", "lmetric")
LOSS = 1.02
"""By more than this in TTFT mean or p99 counts as lost: below are differences of chance."""

LEARNED_COST = 1.05
"""With learned rates, TTFT may be this ratio of what it is with true ones."""


class Case(NamedTuple):
    """What policies are compared on."""

    engine: str
    fleet: str
    workload: str
    speedup: float


def in_order(case: Case) -> tuple[int, int, int, float]:
    """What cases are sorted by: the order of the plan, whatever came first from several processes."""
    workload = WORKLOADS.index(case.workload)
    return ENGINES.index(case.engine), FLEETS.index(case.fleet), workload, case.speedup


@dataclass(frozen=True, slots=True)
class Row:
    """Our router in one case, over all seeds. Ratios are geometric means; None: nothing to compare with, or
    ours rejected a request."""

    case: Case
    seeds: int
    peers: int  # that have run, for the seed that has fewest
    ratios: Mapping[str, float | None]  # to the best peer, by metric
    best_peer: str  # in TTFT mean, for most seeds; '' where there is none
    to_oracle: float | None  # TTFT mean
    to_true_rates: float | None  # TTFT mean after the first 500 requests
    against: Mapping[tuple[str, str], float | None]  # to those that we must not lose to, by policy and metric
    ttft_mean_s: float | None
    token_hit_ratio: float | None
    busy_arriving: float | None  # average endpoint, 0..1
    rejected: float  # requests, all seeds


@dataclass(frozen=True, slots=True)
class Target:
    """What the geometric means over a fleet's cases are to reach, by metric, and the worst case in mean."""

    ratios: Mapping[str, float]
    worst_mean: float


TARGETS = {
    "mixed8": Target({MEAN: 0.65, P99: 0.50, E2E_P99: 0.90, E2E_MEAN: 1.0}, worst_mean=1.0),
    "uniform8": Target({MEAN: 0.75, P99: 0.80, E2E_MEAN: 1.0}, worst_mean=1.05),
}


@dataclass(frozen=True, slots=True)
class Total:
    """All cases of one engine and fleet."""

    engine: str
    fleet: str
    cases: int
    ratios: Mapping[str, float | None]
    worst_mean: float | None
    to_true_rates: float | None
    worst_to_true_rates: tuple[Case, float] | None
    to_oracle: float | None
    failed: int  # cases in which ours rejected a request, and that are in no ratio
    losses: tuple[tuple[Case, str, str, float], ...]  # case, policy, metric, ratio


def rows(runs: Mapping[Run, Figures], ours: str = OURS) -> list[Row]:
    """Every case in which `ours` has run, in the order of the engines, fleets and runs."""
    found: dict[Case, dict[int, dict[str, Figures]]] = defaultdict(lambda: defaultdict(dict))
    for run, figures in runs.items():
        if run.experiment == CASES:
            case = Case(run.engine, run.fleet, run.workload, run.speedup)
            found[case][run.seed][run.policy] = figures
    return [
        _row(case, ran, ours)
        for case, seeds in sorted(found.items(), key=lambda item: in_order(item[0]))
        if (ran := [by_policy for by_policy in seeds.values() if ours in by_policy])
    ]


def totals(found: Sequence[Row]) -> list[Total]:
    """The rows of each engine and fleet, summed up."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row.case.engine, row.case.fleet].append(row)
    return [_total(engine, fleet, group) for (engine, fleet), group in groups.items()]


def losses(found: Iterable[Row]) -> list[tuple[Case, str, str, float]]:
    """Where we lose to a policy that we never should lose to: case, policy, metric and ratio."""
    return [
        (row.case, policy, metric, ratio)
        for row in found
        for (policy, metric), ratio in row.against.items()
        if ratio is not None and ratio > LOSS
    ]


def best_peer(by_policy: Mapping[str, Figures], metric: str) -> tuple[str, float] | None:
    """The peer with the lowest figure among those that served everything, and that figure."""
    served = [
        (figure, name)
        for name in PEERS
        if name in by_policy
        and not by_policy[name].get("rejected")
        and (figure := by_policy[name][metric]) is not None
    ]
    if not served:
        return None
    figure, name = min(served)
    return name, figure


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that there are; None of none."""
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _row(case: Case, seeds: Sequence[Mapping[str, Figures]], ours: str) -> Row:
    best = Counter(peer[0] for by_policy in seeds if (peer := best_peer(by_policy, MEAN)))
    rejected = sum(s[ours].get("rejected") or 0 for s in seeds)
    compared = [] if rejected else seeds
    return Row(
        case=case,
        seeds=len(seeds),
        peers=min(sum(peer in by_policy for peer in PEERS) for by_policy in seeds),
        ratios={metric: geometric_mean(_to_best(s, ours, metric) for s in compared) for metric in METRICS},
        best_peer=best.most_common(1)[0][0] if best else "",
        to_oracle=geometric_mean(_to(s, ours, ORACLE, MEAN) for s in compared),
        to_true_rates=geometric_mean(_to(s, ours, TRUE_RATES, AFTER_500) for s in compared),
        against={
            (policy, metric): geometric_mean(_to(s, ours, policy, metric) for s in compared)
            for policy in NEVER_LOSES_TO
            for metric in (MEAN, P99)
        },
        ttft_mean_s=_mean(s[ours][MEAN] for s in seeds),
        token_hit_ratio=_mean(s[ours]["token_hit_ratio"] for s in seeds),
        busy_arriving=_mean(s[ours].get("busy_arriving") for s in seeds),
        rejected=rejected,
    )


def _total(engine: str, fleet: str, group: Sequence[Row]) -> Total:
    means = [mean for row in group if (mean := row.ratios[MEAN]) is not None]
    learned = [(row.case, ratio) for row in group if (ratio := row.to_true_rates) is not None]
    return Total(
        engine=engine,
        fleet=fleet,
        cases=len(group),
        ratios={metric: geometric_mean(row.ratios[metric] for row in group) for metric in METRICS},
        worst_mean=max(means, default=None),
        to_true_rates=geometric_mean(row.to_true_rates for row in group),
        worst_to_true_rates=max(learned, key=lambda item: item[1], default=None),
        to_oracle=geometric_mean(row.to_oracle for row in group),
        failed=sum(row.rejected > 0 for row in group),
        losses=tuple(losses(group)),
    )


def _to_best(by_policy: Mapping[str, Figures], ours: str, metric: str) -> float | None:
    peer = best_peer(by_policy, metric)
    return quotient(by_policy[ours][metric], peer[1] if peer else None)


def _to(by_policy: Mapping[str, Figures], ours: str, other: str, metric: str) -> float | None:
    figure = by_policy[other].get(metric) if other in by_policy else None
    return quotient(by_policy[ours].get(metric), figure)


def quotient(figure: float | None, of: float | None) -> float | None:
    """Their ratio, where both were measured and are times."""
    return figure / of if figure and of else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
