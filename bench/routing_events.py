"""What a slowdown, a burst and several replicas did: figures over all seeds. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from routing_plan import BURST, OURS, PEERS, REPLICAS, SLOWDOWN, TOLD, Run
from routing_ratios import MEAN, P99, Case, geometric_mean, in_order, quotient
from sim.policies import is_replicated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from routing_runs import Figures

    Runs = Mapping[Run, Figures]

P90 = "ttft_p90_s"

TOLD_COST = 1.10
"""After a slowdown, TTFT may be this ratio of a policy's that was told of it."""

FAIR = 1.5
"""Of a burst, no endpoint may get more than so many times its part of the fleet's prefill rate."""

LAG_COST = {"20": 1.10}
"""By lag in ms: the ratio that replicas' mean TTFT may be of one replica's."""


@dataclass(frozen=True, slots=True)
class Slowed:
    """Our router after one endpoint slowed; ratios to the policy that was told, times in seconds."""

    case: Case
    seeds: int
    mean: float | None
    p90: float | None
    ttft_mean_s: float | None
    before_ttft_mean_s: float | None
    rejected: float  # by ours, all seeds


@dataclass(frozen=True, slots=True)
class Burst:
    """One policy with a burst of siblings: the worst of all seeds, and mean TTFT in seconds over them."""

    case: Case
    policy: str
    seeds: int
    most_over_fair: float
    prefilled_on: float  # endpoints
    ttft_mean_s: float | None
    last_token_s: float
    rejected: float


@dataclass(frozen=True, slots=True)
class Replicated:
    """Replicas of a router with a lag: ratios to our single one, over all cases and seeds.

    `to_best_peer`: of ours, TTFT mean by that of the peer under the same lag that comes nearest, on the
    same jobs; None where no peer has run, and of peers.
    """

    engine: str
    fleet: str
    policy: str
    seeds: int  # of the workload that has fewest
    mean: float | None
    p99: float | None
    to_best_peer: float | None
    rejected: float  # all cases and seeds


def slowdowns(runs: Runs) -> list[Slowed]:
    """Every case of a slowdown in which ours has run."""
    return [
        Slowed(
            case,
            seeds=len(ours),
            mean=geometric_mean(_against(runs, run, TOLD, MEAN) for run in ours),
            p90=geometric_mean(_against(runs, run, TOLD, P90) for run in ours),
            ttft_mean_s=geometric_mean(runs[run][MEAN] for run in ours),
            before_ttft_mean_s=geometric_mean(runs[run]["before_ttft_mean_s"] for run in ours),
            rejected=_rejected(runs, ours),
        )
        for case, ran in _by_case(runs, SLOWDOWN).items()
        if (ours := [run for run in ran if run.policy == OURS])
    ]


def bursts(runs: Runs) -> list[Burst]:
    """Every policy's burst on every fleet."""
    found = []
    for case, ran in _by_case(runs, BURST).items():
        for policy in dict.fromkeys(run.policy for run in sorted(ran, key=lambda run: run.policy != OURS)):
            figures = [runs[run] for run in ran if run.policy == policy]
            found.append(
                Burst(
                    case,
                    policy,
                    seeds=len(figures),
                    most_over_fair=_worst(figures, "most_over_fair"),
                    prefilled_on=_worst(figures, "prefilled_on"),
                    ttft_mean_s=geometric_mean(figure[MEAN] for figure in figures),
                    last_token_s=_worst(figures, "last_token_s"),
                    rejected=_worst(figures, "rejected"),
                )
            )
    return found


def replicas(runs: Runs) -> list[Replicated]:
    """Every replicated policy, by engine and fleet."""
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for case, ran in _by_case(runs, REPLICAS).items():
        for run in ran:
            if is_replicated(run.policy):
                groups[case.engine, case.fleet, run.policy].append(run)
    return [
        Replicated(
            *group,
            seeds=min(Counter(run.workload for run in ran).values()),
            mean=geometric_mean(_against(runs, run, OURS, MEAN) for run in ran),
            p99=geometric_mean(_against(runs, run, OURS, P99) for run in ran),
            to_best_peer=_to_best_peer(runs, ran),
            rejected=_rejected(runs, ran),
        )
        for group, ran in groups.items()
    ]


def _by_case(runs: Runs, experiment: str) -> dict[Case, list[Run]]:
    found: dict[Case, list[Run]] = defaultdict(list)
    for run in runs:
        if run.experiment == experiment:
            found[Case(run.engine, run.fleet, run.workload, run.speedup)].append(run)
    return dict(sorted(found.items(), key=lambda item: in_order(item[0])))


def _against(runs: Runs, run: Run, other: str, metric: str) -> float | None:
    """A run's figure by that of another policy on the same jobs; None unless both served them all."""
    beside = runs.get(replace(run, policy=other))
    if beside is None or beside.get("rejected") or runs[run].get("rejected"):
        return None
    return quotient(runs[run][metric], beside[metric])


def _to_best_peer(runs: Runs, ran: Sequence[Run]) -> float | None:
    policy, _, kind = ran[0].policy.partition("_replicas")
    if policy != OURS:
        return None
    names = [f"{peer}_replicas{kind}" for peer in PEERS]
    ratios = [geometric_mean(_against(runs, run, name, MEAN) for run in ran) for name in names]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _rejected(runs: Runs, ran: Sequence[Run]) -> float:
    return sum(runs[run].get("rejected") or 0 for run in ran)


def _worst(figures: Sequence[Figures], name: str) -> float:
    return max((value for figure in figures if (value := figure[name]) is not None), default=0.0)
