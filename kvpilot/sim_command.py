"""`kvpilot sim`: replay a workload on a simulated fleet, once for every policy, and compare.

A progress bar goes to stderr where that is a terminal; the table, or one object of JSON, to stdout. A
mistake raises ConfigError, whose one line names what would be right.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.errors import ConfigError
from kvpilot.table import seconds_text, share_text
from sim import fleets, policies, workloads
from sim.result import Summary, average
from sim.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.fleets import SimFleet

_ALL = "all"
_LARGEST_COUNT = 1000  # seeds: a run takes seconds

_PLAIN_WIDTH = 160  # characters; a pipe or a file has no width of its own

_WORKLOADS = f"one of {', '.join((*workloads.NAMES, *workloads.PUBLISHED))}, or a trace file"
_POLICIES = f"all, or some of {', '.join(policies.NAMES)}"

_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("TTFT mean", "ttft_mean_s", seconds_text),
    ("p50", "ttft_p50_s", seconds_text),
    ("p90", "ttft_p90_s", seconds_text),
    ("p99", "ttft_p99_s", seconds_text),
    ("e2e mean", "e2e_mean_s", seconds_text),
    ("p99", "e2e_p99_s", seconds_text),
    ("TPOT", "tpot_mean_s", lambda value: "-" if value is None else f"{value * 1000:.1f} ms"),
    ("hits", "token_hit_ratio", share_text),
    ("rejected", "rejected", lambda value: f"{value:g}"),
    ("busy", "busy_mean", share_text),
)
"""Heading, figure and its text."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared: every policy on the same workloads, one for each seed."""

    workload: str
    fleet: SimFleet
    policies: tuple[str, ...]
    speedup: float
    seeds: range


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the parser."""
    sim = commands.add_parser("sim", help="compare routing policies on a simulated fleet")
    sim.set_defaults(run=run)
    sim.add_argument("--workload", default="chat", metavar="NAME|FILE", help=_WORKLOADS)
    sim.add_argument(
        "--fleet", default="uniform8", metavar="NAME|FILE", help="uniformN, mixedN, or a kvpilot.yaml"
    )
    sim.add_argument("--policies", default=_ALL, metavar="A,B|all", help=_POLICIES)
    sim.add_argument("--speedup", type=_factor, default=1.0, help="divides the times between arrivals")
    sim.add_argument("--seed", type=int, default=1, help="the first seed")
    sim.add_argument("--seeds", type=_count, default=1, help="number of seeds that figures are averaged over")
    sim.add_argument("--json", dest="as_json", action="store_true", help="JSON on stdout")


def run(options: argparse.Namespace) -> None:
    """Run the command and print what it found. Raises KvpilotError."""
    study = Study(
        _workload(options.workload),
        fleets.fleet(options.fleet),
        _policies(options.policies),
        options.speedup,
        range(options.seed, options.seed + options.seeds),
    )
    found = compare(study)
    if options.as_json:
        print(json.dumps(as_json(study, found)))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, _PLAIN_WIDTH)
        console.print(render(study, found))


def compare(study: Study) -> dict[str, Summary]:
    """Each policy's figures, averaged over the seeds."""
    runs: dict[str, list[Summary]] = {name: [] for name in study.policies}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("simulating", total=len(study.seeds) * len(study.policies))
        for seed in study.seeds:
            progress.update(task, description=f"reading {study.workload}")
            jobs = workloads.build(study.workload, seed, study.speedup)
            for name in study.policies:
                progress.update(task, description=f"{name}, seed {seed}")
                result = simulate(jobs, study.fleet, policies.make(name), seed)
                runs[name].append({**result.summary(), "busy_mean": sum(result.busy) / len(result.busy)})
                progress.advance(task)
    return {name: average(summaries) for name, summaries in runs.items()}


def as_json(study: Study, found: dict[str, Summary]) -> dict[str, object]:
    """The study and its figures as plain data; a figure that nothing was measured for is null."""
    return {
        "workload": study.workload,
        "fleet": study.fleet.name,
        "speedup": study.speedup,
        "seeds": list(study.seeds),
        "policies": found,
    }


def render(study: Study, found: dict[str, Summary]) -> Table:
    """The same for a screen."""
    seeds = ", ".join(map(str, study.seeds))
    title = f"{study.workload} at speedup {study.speedup:g} on {study.fleet.name}, seed {seeds}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in found.items():
        table.add_row(name, *(text(figures[figure]) for _, figure, text in _COLUMNS))
    return table


def _workload(name: str) -> str:
    if name in (*workloads.NAMES, *workloads.PUBLISHED) or Path(name).is_file():
        return name
    raise ConfigError("command line", "--workload", name, f"expected {_WORKLOADS}")


def _policies(text: str) -> tuple[str, ...]:
    names = policies.NAMES if text == _ALL else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in policies.NAMES:
            raise ConfigError("command line", "--policies", name, f"expected {_POLICIES}")
    return tuple(dict.fromkeys(names))


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return factor


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) <= _LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_LARGEST_COUNT}")
    return int(text)
