"""Workloads by the name that a user gives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import ConfigError
from sim.workloads import agents, chat, groups, mix, mooncake
from sim.workloads.draws import Source, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sim.policy import Job

_GENERATED: dict[str, Callable[[Source], Iterable[Job]]] = {
    "groups": lambda source: groups.generate(groups.Groups(), source),
    "chat": lambda source: chat.generate(chat.Chat(), source),
    "agents": lambda source: agents.generate(agents.Agents(), source),
    "long_mix": lambda source: mix.generate(mix.LONG_MIX, source),
    "batch_mix": lambda source: mix.generate(mix.BATCH_MIX, source),
}

NAMES = tuple(_GENERATED)
"""Generated workloads whose rates suit eight endpoints of 20,480 prefill tokens/s each. At speedup 1 these
prefill 0.38 to 0.50 of the time by `load.busy_fraction`, where no prefix is ever computed twice: about half
when a real router steers them (seen, uniform8: 0.4 to 0.53). Near 1.7 they begin to saturate."""

PUBLISHED = tuple(groups.PUBLISHED)
"""Generated workloads as peers publish them, at their own rates, whatever fleet those were meant for."""


def build(name_or_path: str, seed: int, speedup: float = 1.0) -> list[Job]:
    """The workload's jobs by arrival, numbered from 0: the same for the same name, seed and speedup.

    `speedup` divides all times. Raises ConfigError for a name that is neither a generated workload nor the
    path of a trace, for a trace that cannot be read, and for a speedup that is not above 0.
    """
    if not (math.isfinite(speedup) and speedup > 0):
        raise ConfigError("speedup", "", speedup, "expected a number above 0")
    return in_order(_jobs(name_or_path, seed), speedup)


def _jobs(name: str, seed: int) -> Iterable[Job]:
    if (generate := _GENERATED.get(name)) is not None:
        return generate(Source(name, seed))
    if (plan := groups.PUBLISHED.get(name)) is not None:
        return groups.generate(plan, Source(name, seed))
    if name.endswith(mooncake.SUFFIXES):
        # Not named by its path: the same trace gives the same jobs wherever it lies.
        return mooncake.jobs(mooncake.read(Path(name)), Source("trace", seed).random)
    known = ", ".join((*NAMES, *PUBLISHED))
    raise ConfigError("workload", "", name, f"expected {known}, or a trace: a path ending in .jsonl[.gz]")
