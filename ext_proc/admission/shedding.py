"""Whom to turn away while a model is overloaded: the lowest priorities first, and of those who ask for most.

How many of a priority's requests are turned away follows from the wait that is predicted for the next one
(and from how full the KV caches are), without memory of its own: none up to the level's limit, all from
RAMP times it, and in between as many in proportion. The backlog itself is what smooths it. A level is not
touched before the one below it is turned away entirely.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from ext_proc.admission.fairness import Shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleet.settings import LevelSettings

RAMP = 1.5
"""Limits at which a whole level is turned away: wide enough that shares change slowly, since a backlog moves
by at most a second a second; narrow enough that a limit means something."""

KV_RAMP = 0.05
"""The same for the share of KV caches in use: from the limit to so much more."""

_PRIORITY = attrgetter("priority")


@dataclass(frozen=True, slots=True)
class Saturation:
    """How overloaded the candidates of a request are."""

    wait: float  # seconds until the first of them would begin with one more prompt
    kv_share: float  # of all their KV caches in use, 0..1


class Shedder:
    """One model's levels, who asked lately, and whose turn it is to be turned away."""

    def __init__(self, levels: Sequence[LevelSettings], weights: Mapping[str, float], seed: int) -> None:
        """`levels` by ascending priority. `weights` of tenants in what is short, 1 where they say nothing."""
        self._levels = levels
        self._shares = [Shares(weights) for _ in levels]
        self._random = random.Random(seed)
        self._due: dict[tuple[int, str], float] = {}  # of each tenant's requests to turn away, 0..1

    def level(self, priority: int) -> int:
        """The number of the level that `priority` belongs to; below all of them it is the lowest."""
        return max(0, bisect_right(self._levels, priority, key=_PRIORITY) - 1)

    def crowded(self, priority: int, saturation: Saturation) -> bool:
        """Whether this priority would begin to be turned away."""
        level = self._levels[self.level(priority)]
        over = level.kv_share < 1 and saturation.kv_share > level.kv_share
        return over or saturation.wait > level.wait_seconds

    def share(self, level: int, saturation: Saturation) -> float:
        """The share of the level's work to turn away, 0..1."""
        share = 0.0
        for each in self._levels[: level + 1]:
            if share < 1 and each is not self._levels[0]:
                return 0.0  # somebody less important is still let in
            share = _share(each, saturation)
        return share

    def sheds(self, tenant: str, priority: int, tokens: float, saturation: Saturation, now: float) -> bool:
        """Whether to turn a request away that asks for so many `tokens`. It counts as asked either way."""
        level = self.level(priority)
        shares = self._shares[level]
        shares.ask(tenant, tokens, now)
        share = self.share(level, saturation)
        if share <= 0:
            return False
        if share >= 1:
            return True
        key = (level, shares.account(tenant))
        due = self._due.get(key)
        if due is None:
            due = self._random.random()  # so that not all tenants' first requests go together
        due += shares.denied(tenant, share, now)
        self._due[key] = due - 1 if due >= 1 else due
        return due >= 1


def _share(level: LevelSettings, saturation: Saturation) -> float:
    by_wait = (saturation.wait / level.wait_seconds - 1) / (RAMP - 1)
    by_kv = (saturation.kv_share - level.kv_share) / KV_RAMP if level.kv_share < 1 else 0.0
    return min(1.0, max(0.0, by_wait, by_kv))
