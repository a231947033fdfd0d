"""What every generated workload draws: arrival times, lengths, and texts that nobody has seen before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sim.policy import Job


class Source:
    """Chance and fresh texts for one workload; the same for the same name and seed."""

    def __init__(self, name: str, seed: int) -> None:
        self.random = Random(f"{name} {seed}")
        self._texts = count()

    def text(self) -> int:
        """The number of a text that occurs nowhere else in the workload."""
        return next(self._texts)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of texts in tokens: log-normal, as those of real messages and answers are, and cut at `most`.

    `spread` is the standard deviation of the logarithm: 0 always gives `mean`, 1 a median of 0.6 x mean.
    """

    mean: float
    spread: float
    most: int

    def draw(self, random: Random) -> int:
        """One length, at least 1 token."""
        return max(1, min(self.most, round(log_normal(random, self.mean, self.spread))))


@dataclass(frozen=True, slots=True)
class Step:
    """Arrivals at `rate` a second for so many `seconds`."""

    rate: float
    seconds: float


def log_normal(random: Random, mean: float, spread: float) -> float:
    """A positive number with that mean, `spread` being the standard deviation of its logarithm."""
    return random.lognormvariate(math.log(mean) - spread * spread / 2, spread)


def poisson(random: Random, steps: Sequence[Step]) -> Iterator[float]:
    """Times in seconds of independent arrivals, one step after the other."""
    begin = 0.0
    for step in steps:
        at = begin + random.expovariate(step.rate)
        while at < begin + step.seconds:
            yield at
            at += random.expovariate(step.rate)
        begin += step.seconds


def in_order(jobs: Iterable[Job], speedup: float) -> list[Job]:
    """The jobs by arrival, numbered from 0; `speedup` divides all their times."""
    ordered = sorted(jobs, key=attrgetter("arrival"))
    return [replace(job, id=number, arrival=job.arrival / speedup) for number, job in enumerate(ordered)]
