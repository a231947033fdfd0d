"""`kvpilot sim`: replay a workload on a simulated fleet, once for every policy, and compare.

A progress bar goes to stderr where that is a terminal; the table, or one object of JSON, to stdout. A
mistake raises ConfigError, whose one line names what would be right. `--plot` also draws a picture, for which
every policy is simulated at other loads, too.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.errors import ConfigError
from kvpilot import sim_plot
from kvpilot.table import seconds_text, share_text
from sim import fleets, policies, workloads
from sim.result import average
from sim.simulation import simulate
from sim.timing import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.progress import TaskID

    from sim.fleets import SimFleet
    from sim.result import Result, Summary

    Curve = list[tuple[float, float]]  # by speedup, mean TTFT in seconds

_ALL = "all"
_LARGEST_COUNT = 1000  # seeds: a run takes seconds

_OTHER_LOADS = (0.5, 0.75, 1.25, 1.5)
"""Times the speedup: what a picture's load/latency curve has besides the speedup itself."""

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
    engine: str = "standard"
    kv_events: bool = False
    usage_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a study found, by policy: figures averaged over the seeds, and every TTFT in seconds."""

    figures: Mapping[str, Summary]
    ttft: Mapping[str, list[float]]


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
    sim.add_argument("--engine", choices=tuple(ENGINES), default="standard", help="the engine model")
    sim.add_argument(
        "--usage-share", type=_share, default=1.0, help="of the answers, 0 to 1, that tell their usage"
    )
    sim.add_argument("--kv-events", action="store_true", help="engines tell our picker what they cache")
    sim.add_argument("--seed", type=int, default=1, help="the first seed")
    sim.add_argument("--seeds", type=_count, default=1, help="number of seeds that figures are averaged over")
    sim.add_argument("--json", dest="as_json", action="store_true", help="JSON on stdout")
    loads = ", ".join(f"{factor:g}" for factor in _OTHER_LOADS)
    drawn = (
        f"draw TTFTs and how they grow with load (simulates at {loads} times the speedup, too: 5 x the time)"
    )
    sim.add_argument("--plot", type=Path, metavar="FILE.png", help=drawn)


def run(options: argparse.Namespace) -> None:
    """Run the command and print what it found. Raises KvpilotError."""
    study = Study(
        _workload(options.workload),
        fleets.fleet(options.fleet),
        _policies(options.policies),
        options.speedup,
        range(options.seed, options.seed + options.seeds),
        options.engine,
        options.kv_events,
        options.usage_share,
    )
    if options.plot:
        sim_plot.check(options.plot)
    found, load = _study(study, _OTHER_LOADS if options.plot else ())
    if options.plot:
        sim_plot.draw(sim_plot.Curves(_title(study), found.ttft, load), options.plot)
    if options.as_json:
        print(json.dumps(as_json(study, found.figures)))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, _PLAIN_WIDTH)
        console.print(render(study, found.figures))


def _study(study: Study, other_loads: Sequence[float]) -> tuple[Comparison, Mapping[str, Curve]]:
    """The study, and each policy's mean TTFT by speedup: its own, and so many times that."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        runs = len(study.seeds) * len(study.policies) * (1 + len(other_loads))
        bar = _Bar(progress, progress.add_task("simulating", total=runs))
        found = compare(study, bar)
        means = {study.speedup: found.figures}
        for factor in other_loads:
            other = replace(study, speedup=factor * study.speedup)
            means[other.speedup] = compare(other, bar).figures
    return found, {
        name: [
            (speedup, mean)
            for speedup, figures in sorted(means.items())
            if (mean := figures[name]["ttft_mean_s"]) is not None
        ]
        for name in study.policies
    }


@dataclass(frozen=True, slots=True)
class _Bar:
    """The progress of all runs of the command."""

    progress: Progress
    task: TaskID

    def say(self, text: str) -> None:
        self.progress.update(self.task, description=text)

    def advance(self) -> None:
        self.progress.advance(self.task)


def compare(study: Study, bar: _Bar) -> Comparison:
    """Play every policy on the study's workload, once for each seed."""
    runs: dict[str, list[Summary]] = {name: [] for name in study.policies}
    ttft: dict[str, list[float]] = {name: [] for name in study.policies}
    for seed in study.seeds:
        bar.say(f"reading {study.workload}")
        jobs = workloads.build(study.workload, seed, study.speedup)
        for name in study.policies:
            bar.say(f"{name}, speedup {study.speedup:g}, seed {seed}")
            result = simulate(
                jobs,
                study.fleet,
                policies.make(name),
                seed,
                usage_share=study.usage_share,
                engine=study.engine,
                kv_events=study.kv_events,
            )
            runs[name].append({**result.summary(), "busy_mean": sum(result.busy) / len(result.busy)})
            ttft[name] += _ttft(result)
            bar.advance()
    return Comparison({name: average(summaries) for name, summaries in runs.items()}, ttft)


def _ttft(result: Result) -> list[float]:
    return [outcome.ttft for outcome in result.outcomes if outcome.endpoint is not None]


def as_json(study: Study, found: Mapping[str, Summary]) -> dict[str, object]:
    """The study and its figures as plain data; a figure that nothing was measured for is null."""
    return {
        "workload": study.workload,
        "fleet": study.fleet.name,
        "engine": study.engine,
        "speedup": study.speedup,
        "seeds": list(study.seeds),
        "policies": found,
    }


def render(study: Study, found: Mapping[str, Summary]) -> Table:
    """The same for a screen."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=_title(study), title_justify="left")
    table.add_column("policy", no_wrap=True)
    for heading, _, _ in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in found.items():
        table.add_row(name, *(text(figures[figure]) for _, figure, text in _COLUMNS))
    return table


def _title(study: Study) -> str:
    seeds = ", ".join(map(str, study.seeds))
    engine = "" if study.engine == "standard" else f" ({study.engine} engine)"
    return f"{study.workload} at speedup {study.speedup:g} on {study.fleet.name}{engine}, seed {seeds}"


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


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) <= _LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_LARGEST_COUNT}")
    return int(text)
