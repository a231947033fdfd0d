"""What shedding does under overload: people's time to first token beside batch work. JSON on stdout.

    .venv/bin/python bench/shedding.py --speedups 1.5 2.0 --seeds 2

Our picker on the simulated workload `batch_mix`, where batch has a lower priority than people, in four ways:
`off`; `order`: held requests of people go first, nobody is refused; `shed`: the lowest are refused while the
model is overloaded, held requests go as without priorities; `shed_order`: both, which is the default of
`admission.shed: true`. Figures are means over seeds; TTFT is of those that were served.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from fleet.quantiles import nearest_rank
from fleet.settings import AdmissionSettings
from sim import fleets, workloads
from sim.policies.kvpilot import Kvpilot
from sim.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.policy import Job
    from sim.result import Result

WORKLOAD = "batch_mix"
NEVER = 86_400.0
"""Seconds of wait that no request of the simulation comes to."""

Figures = dict[str, float | None]


def variants() -> dict[str, AdmissionSettings | None]:
    """What is compared, by name."""
    levels = AdmissionSettings().levels
    together = tuple(level.model_copy(update={"head_start_seconds": 0.0}) for level in levels)
    patient = tuple(level.model_copy(update={"wait_seconds": NEVER, "kv_share": 1.0}) for level in levels)
    return {
        "off": None,
        "order": AdmissionSettings(shed=True, levels=patient),
        "shed": AdmissionSettings(shed=True, levels=together),
        "shed_order": AdmissionSettings(shed=True),
    }


def by_class(jobs: Sequence[Job], result: Result) -> dict[str, Figures]:
    """TTFT in seconds and shares of requests, for people and for batch."""
    found: dict[str, Figures] = {}
    for kind in ("interactive", "batch"):
        ids = {job.id for job in jobs if job.workload_class == kind}
        outcomes = [outcome for outcome in result.outcomes if outcome.job in ids]
        ttft = sorted(outcome.ttft for outcome in outcomes if outcome.endpoint is not None)
        found[kind] = {
            "requests": len(outcomes),
            "refused": len(outcomes) - len(ttft),
            "ttft_mean_s": sum(ttft) / len(ttft) if ttft else None,
            "ttft_p50_s": nearest_rank(ttft, 0.5) if ttft else None,
            "ttft_p99_s": nearest_rank(ttft, 0.99) if ttft else None,
        }
    return found


def mean(runs: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """Over seeds, where it was measured."""
    together: dict[str, Figures] = {}
    for kind, figures in runs[0].items():
        together[kind] = {}
        for name in figures:
            values = [value for run in runs if (value := run[kind][name]) is not None]
            together[kind][name] = round(sum(values) / len(values), 3) if values else None
    return together


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.0, 1.5, 2.0, 2.5])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--fleet", default="mixed8")
    options = parser.parse_args()
    found = []
    for speedup in options.speedups:
        runs: dict[str, list[dict[str, Figures]]] = {name: [] for name in variants()}
        for seed in range(1, options.seeds + 1):
            jobs = workloads.build(WORKLOAD, seed, speedup)
            for name, admission in variants().items():
                print(f"speedup {speedup:g}, seed {seed}: {name}", file=sys.stderr)
                policy = Kvpilot(admission=admission)
                result = simulate(jobs, fleets.fleet(options.fleet), policy, seed)
                runs[name].append(by_class(jobs, result))
        found += [
            {"workload": WORKLOAD, "fleet": options.fleet, "speedup": speedup, "seeds": options.seeds}
            | {"variant": name, **mean(of_variant)}
            for name, of_variant in runs.items()
        ]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
