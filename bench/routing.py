"""Our router against every peer's policy, on the simulator; docs/benchmarks.md holds what it found.

    .venv/bin/python bench/routing.py run cases --trace conversation_trace.jsonl.gz --out runs.jsonl
    .venv/bin/python bench/routing.py run slowdown|burst|replicas [--trace ...] --out runs.jsonl --resume
    .venv/bin/python bench/routing.py table runs.jsonl --into docs/benchmarks.md

Runs are independent and played by `--jobs` processes; each adds a line of JSON to the file as it ends, and of
a run that was repeated the last line counts. At the end, one object of JSON on stdout; progress on stderr.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

import routing_events as events
import routing_ratios as ratios
import routing_table as table
from fleet.errors import ConfigError, KvpilotError
from routing_plan import ENGINES, EXPERIMENTS, FLEETS, SEEDS, TRACE, WORKLOADS, Run, plan, policies_of
from routing_runs import Figures, execute
from sim import policies
from sim.workloads import build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RUN_FIELDS = tuple(field.name for field in fields(Run))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "run":
            run(options)
        else:
            show(options)
    except (KvpilotError, OSError) as error:
        print(f"bench/routing.py: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Play what was asked for and is not in the file yet, and print what all runs of the file come to."""
    known = load(options.out)
    if known and not (options.resume or options.replace):
        raise ConfigError("command line", "--out", str(options.out), "holds runs: say --resume or --replace")
    wanted = [one for one in _wanted(options) if options.replace or one not in known]
    trace = str(options.trace) if options.trace else None
    play(wanted, trace, options.out, options.jobs)
    print(json.dumps(as_json(load(options.out)), indent=2))


def play(runs: Sequence[Run], trace: str | None, out: Path, jobs: int) -> None:
    """Play the runs in `jobs` processes, each figure to the file as it comes."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    processes = multiprocessing.get_context("spawn")
    with (
        out.open("a") as lines,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        ProcessPoolExecutor(jobs, mp_context=processes) as pool,
    ):
        task = progress.add_task("simulating", total=len(runs))
        playing = {pool.submit(execute, one, trace): one for one in runs}
        try:
            for done in as_completed(playing):
                lines.write(json.dumps({**playing[done].as_json(), **done.result()}) + "\n")
                lines.flush()
                progress.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def show(options: argparse.Namespace) -> None:
    """Print the file's runs as Markdown, or put them into a document's sections."""
    sections = table.sections(load(options.file))
    if options.into is None:
        print("\n\n".join(sections.values()))
        return
    document = options.into.read_text()
    for experiment, text in sections.items():
        changed = table.put(document, experiment, text)
        if changed is None:
            raise ConfigError(str(options.into), "", None, f"expected <!-- {experiment} --> and its end")
        document = changed
    options.into.write_text(document)


def load(file: Path) -> dict[Run, Figures]:
    """The runs of a file, if it is there; of each the last line counts. Raises ConfigError."""
    found: dict[Run, Figures] = {}
    if not file.exists():
        return found
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            data = json.loads(line)
            one = Run(**{name: data.pop(name) for name in _RUN_FIELDS})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{file}, line {number}", "", None, "expected one run as JSON") from error
        found[one] = data
    return found


def as_json(runs: Mapping[Run, Figures]) -> dict[str, Any]:
    """What the runs come to as plain data."""
    rows = ratios.rows(runs)
    cases = [asdict(row) for row in rows]
    for case in cases:
        case["against"] = {" ".join(key): ratio for key, ratio in case["against"].items()}
    return {
        "runs": len(runs),
        "totals": [asdict(total) for total in ratios.totals(rows)],
        "cases": cases,
        "slowdowns": [asdict(item) for item in events.slowdowns(runs)],
        "bursts": [asdict(item) for item in events.bursts(runs)],
        "replicas": [asdict(item) for item in events.replicas(runs)],
    }


def _wanted(options: argparse.Namespace) -> list[Run]:
    workloads = options.workloads
    if TRACE in workloads and options.trace is None:
        print(f"without --trace, {TRACE} is left out", file=sys.stderr)
        workloads = [name for name in workloads if name != TRACE]
    elif TRACE in workloads:
        build(str(options.trace), 1)  # a mistake in it is told here, and once
    names = options.policies or policies_of(options.experiment)
    wanted = plan(
        options.experiment,
        names,
        engines=options.engines,
        fleets=options.fleets,
        workloads=workloads,
        seeds=options.seeds,
    )
    print(f"{options.experiment}: {len(wanted)} runs of {', '.join(names)}", file=sys.stderr)
    return wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    ran = commands.add_parser("run", help="play an experiment")
    ran.add_argument("experiment", choices=EXPERIMENTS)
    ran.add_argument("--out", type=Path, required=True, metavar="FILE", help="lines of JSON, one per run")
    again = ran.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="play only what the file does not hold")
    again.add_argument("--replace", action="store_true", help="play it again; new lines replace old ones")
    ran.add_argument("--trace", type=Path, metavar="FILE", help=f"what {TRACE} is replayed from")
    ran.add_argument("--jobs", type=_count, default=os.cpu_count() or 1, help="processes (one per CPU)")
    _add_choice(ran, "--policies", policies.NAMES, ())
    _add_choice(ran, "--engines", ENGINES, ENGINES)
    _add_choice(ran, "--fleets", FLEETS, FLEETS)
    _add_choice(ran, "--workloads", WORKLOADS, WORKLOADS)
    ran.add_argument("--seeds", type=_seeds, default=SEEDS, metavar="1,2", help="default: 1 to 5")
    shown = commands.add_parser("table", help="a file's runs as Markdown")
    shown.add_argument("file", type=Path)
    shown.add_argument("--into", type=Path, metavar="FILE", help="a document whose sections are replaced")
    return parser


def _add_choice(
    parser: argparse.ArgumentParser, name: str, known: Sequence[str], default: Sequence[str]
) -> None:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{min(unknown)!r} is none of {', '.join(known)}")
        return names

    said = "all" if default else "those of the experiment"
    parser.add_argument(name, type=chosen, default=list(default), metavar="A,B", help=f"default: {said}")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,2,3") from None


if __name__ == "__main__":
    sys.exit(main())
