"""From what was counted in each slice to the figures of a case."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Steady:
    """Latencies in ms at a fixed rate, through the picker and without it, of slices that took turns."""

    picked_ms: tuple[float, ...]
    plain_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Saturated:
    """One slice under as much load as goes through: answers, and CPU seconds by process."""

    answered: int
    seconds: float
    server_cpu: float  # the picker, or its echo
    envoy_cpu: float

    @property
    def rps(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def server_us(self) -> float:
        """CPU of the server for each answer, in microseconds."""
        return 1e6 * self.server_cpu / max(1, self.answered)

    @property
    def envoy_us(self) -> float:
        """CPU of Envoy for each answer, in microseconds."""
        return 1e6 * self.envoy_cpu / max(1, self.answered)


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of every arm."""

    steady: Steady
    picker: Saturated
    echo: Saturated


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, as their distances say; 0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians over the rounds, and under `spread` the least and the most of each."""
    each = [_of_round(one) for one in rounds]
    figures: dict[str, Any] = {key: _rounded(statistics.median(r[key] for r in each)) for key in each[0]}
    figures["spread"] = {
        key: [_rounded(min(r[key] for r in each)), _rounded(max(r[key] for r in each))] for key in each[0]
    }
    return figures


def _of_round(one: Round) -> dict[str, float]:
    figures = {
        "rps": one.picker.rps,
        "picker_cpu_us_per_request": one.picker.server_us,
        "envoy_cpu_us_per_request": one.picker.envoy_us,
    }
    for percent in PERCENTILES:
        added = percentile(one.steady.picked_ms, percent) - percentile(one.steady.plain_ms, percent)
        figures[f"added_p{percent}_ms"] = added
    return figures | {
        "rps_per_core": 1e6 / one.picker.server_us if one.picker.server_us else 0.0,
        "vs_echo": one.picker.server_us / one.echo.server_us if one.echo.server_us else 0.0,
        "echo_cpu_us_per_request": one.echo.server_us,
        "echo_envoy_cpu_us_per_request": one.echo.envoy_us,
        "echo_rps": one.echo.rps,
        "plain_p50_ms": percentile(one.steady.plain_ms, 50),
        "plain_p95_ms": percentile(one.steady.plain_ms, 95),
    }


def _rounded(value: float) -> float:
    return round(value, 3 if abs(value) < 100 else 1)
