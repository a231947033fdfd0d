"""What the benchmark of routing policies runs: experiments, cases, seeds and policies, as a list of runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING

from sim import policies

if TYPE_CHECKING:
    from collections.abc import Sequence

ENGINES = ("standard", "variant")
FLEETS = ("mixed8", "uniform8")
SEEDS = (1, 2, 3, 4, 5)

TRACE = "conversation"
"""The workload that is replayed from a file: the published conversation trace."""

SPEEDUPS: dict[str, dict[str, tuple[float, ...]]] = {
    "standard": {
        TRACE: (1, 2, 3, 4.25),
        "groups": (1.15, 1.65),
        "chat": (1.15, 1.8),
        "agents": (1.15, 1.85),
        "long_mix": (1.15, 1.9),
    },
    "variant": {  # a slower engine: answers share its token budget, and long contexts cost more
        TRACE: (1, 2, 2.5, 3),
        "groups": (0.9, 1.15),
        "chat": (0.9, 1.15),
        "agents": (0.55, 0.75),
        "long_mix": (0.65, 0.9),
    },
}
"""By engine and workload: the factors its times are divided by. For generated ones medium load, then high:
our router leaves endpoints prefilling about 0.5 and 0.85 of the time while requests arrive (`busy_arriving`
of its runs says how much it was), less where the variant's answers fill it up first."""

TRACE_HIGH = 3.0
"""The conversation trace's, where only one is played: it leaves room for an endpoint to slow down."""

WORKLOADS = tuple(SPEEDUPS["standard"])

OURS = "kvpilot"
TRUE_RATES = "kvpilot_true_rates"
TOLD = "kvpilot_told"
ORACLE = "oracle"
PEERS = (
    "epp_default",
    "epp_prefix_affinity",
    "sglang_cache_aware",
    "dynamo",
    "aibrix_prefix_cache",
    "production_stack_loadaware",
    "ray_prefix_aware",
    "lmetric",
)
PLAIN = ("round_robin", "least_requests")

CASES, SLOWDOWN, BURST, REPLICAS = EXPERIMENTS = ("cases", "slowdown", "burst", "replicas")

NUMBER_OF_REPLICAS = 4
LAGS_MS = (5, 20, 100)
"""Of ours. Peers are played at the longest: what they must be beaten at."""

BURST_ON = "groups"
"""The workload that warms a fleet up for a burst, at its medium load."""


@dataclass(frozen=True, slots=True)
class Run:
    """One policy on one workload: independent of every other run."""

    experiment: str
    engine: str
    fleet: str
    workload: str
    speedup: float
    seed: int
    policy: str

    def as_json(self) -> dict[str, str | float]:
        """The same as plain data."""
        return asdict(self)


def policies_of(experiment: str) -> tuple[str, ...]:
    """The policies that an experiment compares."""
    wanted: dict[str, tuple[str, ...]] = {
        CASES: (OURS, TRUE_RATES, ORACLE, *PEERS, *PLAIN),
        SLOWDOWN: (OURS, TOLD),
        BURST: (OURS, "epp_default", "lmetric", "least_requests"),
        REPLICAS: (
            OURS,
            *(policies.replicated(OURS, NUMBER_OF_REPLICAS, lag) for lag in LAGS_MS),
            *(policies.replicated(peer, NUMBER_OF_REPLICAS, LAGS_MS[-1]) for peer in PEERS),
        ),
    }
    return wanted[experiment]


def loads_of(experiment: str, engine: str) -> list[tuple[str, float]]:
    """The workloads of an experiment, each at its speedups."""
    loads = SPEEDUPS[engine]
    if experiment == BURST:
        return [(BURST_ON, loads[BURST_ON][0])]
    if experiment in {SLOWDOWN, REPLICAS}:  # at a high load, where a wrong placement costs most
        return [(name, TRACE_HIGH if name == TRACE else speedups[-1]) for name, speedups in loads.items()]
    return [(workload, speedup) for workload, speedups in loads.items() for speedup in speedups]


def plan(
    experiment: str,
    names: Sequence[str] = (),
    *,
    engines: Sequence[str] = ENGINES,
    fleets: Sequence[str] = FLEETS,
    workloads: Sequence[str] = WORKLOADS,
    seeds: Sequence[int] = SEEDS,
) -> list[Run]:
    """The runs of an experiment, those on the same jobs one after the other. `names` are policies."""
    return [
        Run(experiment, engine, fleet, workload, float(speedup), seed, policy)
        for engine in engines
        for workload, speedup in loads_of(experiment, engine)
        if workload in workloads
        for seed, fleet, policy in product(seeds, fleets, names or policies_of(experiment))
    ]
