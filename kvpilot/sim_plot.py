"""What `kvpilot sim --plot` draws: how TTFT is distributed, and how its mean grows with load.

matplotlib, the extra `plot`, is imported only here and only when something is drawn.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fleet.errors import ConfigError
from kvpilot.table import seconds_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

_INCHES = (13.0, 5.6)
_DPI = 130
_DECADES = 100  # a logarithmic axis that goes further is labelled at powers of ten only
_POINTS = 400  # per distribution: no more than can be seen

_Style = dict[str, Any]

_OURS: dict[str, _Style] = {
    "kvpilot": {"color": "#0b57d0", "linewidth": 3.0, "zorder": 5},
    "kvpilot_true_rates": {"color": "#8ec5ff", "linewidth": 1.6, "linestyle": (0, (4, 2)), "zorder": 6},
    "oracle": {"color": "#111111", "linewidth": 2.0, "linestyle": (0, (1, 1.2)), "zorder": 4},
}
"""Lines that are looked for; all others stay behind them. With true rates ours often runs on top of ours."""

_MUTED = ("#c0785a", "#7a9a62", "#a98bb5", "#c9a24b", "#6fa3a0", "#b8868f", "#8d8468", "#9a9a9a")
_STYLES = ("solid", (0, (6, 2)), (0, (2, 2)))
"""A colour and a style together tell the other policies apart: every colour once in each style."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What is drawn, by policy: the TTFT of every request, and pairs of a speedup and mean TTFT. Seconds."""

    title: str
    ttft: Mapping[str, Sequence[float]]
    load: Mapping[str, Sequence[tuple[float, float]]]


def check(path: Path) -> None:
    """Raise ConfigError where drawing to `path` could not work: better before a simulation than after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise _wrong(path, f"expected a file ending in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise _wrong(path, f"cannot be written: {path.parent} is no directory")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _wrong(path, "cannot be written: expected a file that may be")
    if find_spec("matplotlib") is None:
        raise _wrong(path, "needs matplotlib: pip install 'kvpilot[plot]'")


def draw(curves: Curves, path: Path) -> None:
    """Write the picture. Raises ConfigError where that cannot be done."""
    check(path)
    figure = _figure(curves)
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise _wrong(path, f"cannot be written ({error.strerror or error})") from error


def _figure(curves: Curves) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)  # drawn without a screen
    figure.suptitle(curves.title, x=0.01, ha="left", fontsize=12)
    left, right = figure.subplots(1, 2)
    styles = _styles(tuple(curves.ttft))
    _distributions(left, curves, styles)
    _loads(right, curves, styles)
    _legend(figure, left, curves)
    return figure


def _legend(figure: Figure, axes: Axes, curves: Curves) -> None:
    """Fastest first, as the lines lie from left to right."""
    lines = dict(zip(curves.ttft, axes.get_lines(), strict=True))
    means = {name: sum(times) / len(times) if times else math.inf for name, times in curves.ttft.items()}
    names = sorted(curves.ttft, key=lambda name: means[name])
    figure.legend(
        [lines[name] for name in names],
        [f"{name}  {seconds_text(means[name] if curves.ttft[name] else None)}" for name in names],
        title="policy, mean TTFT",
        alignment="left",
        loc="outside right center",
        frameon=False,
        fontsize=9,
        handlelength=3.2,
    )


def _distributions(axes: Axes, curves: Curves, styles: Mapping[str, _Style]) -> None:
    for name, times in curves.ttft.items():
        axes.plot(*_steps(times), **styles[name])
    axes.set_xscale("log")
    axes.set(title="Distribution of TTFT", xlabel="TTFT (s)", ylabel="share of requests that had it by then")
    axes.set_ylim(0, 1.005)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _finish(axes, "x")


def _loads(axes: Axes, curves: Curves, styles: Mapping[str, _Style]) -> None:
    for name, points in curves.load.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, **styles[name])
    axes.set_yscale("log")
    simulated = sorted({speedup for points in curves.load.values() for speedup, _ in points})
    axes.set_xticks(simulated, [f"{speedup:g}" for speedup in simulated])
    axes.set(title="TTFT under load", xlabel="speedup of the workload (factor)", ylabel="mean TTFT (s)")
    _finish(axes, "y")


def _finish(axes: Axes, logarithmic: str) -> None:
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 (an extra)

    axis = axes.xaxis if logarithmic == "x" else axes.yaxis
    low, high = axes.get_xlim() if logarithmic == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > _DECADES * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _steps(times: Sequence[float]) -> tuple[list[float], list[float]]:
    """A cumulative distribution: times in order, and the share of requests up to each."""
    ordered = sorted(times)
    count = len(ordered)
    ranks = sorted({round(n * (count - 1) / _POINTS) for n in range(_POINTS + 1)}) if count else []
    return [ordered[rank] for rank in ranks], [(rank + 1) / count for rank in ranks]


def _styles(names: Sequence[str]) -> dict[str, _Style]:
    others = [name for name in names if name not in _OURS]
    muted = {
        name: {
            "color": _MUTED[n % len(_MUTED)],
            "linestyle": _STYLES[n // len(_MUTED) % len(_STYLES)],
            "linewidth": 1.3,
            "zorder": 2,
        }
        for n, name in enumerate(others)
    }
    return {name: _OURS.get(name) or muted[name] for name in names}


def _wrong(path: Path, expected: str) -> ConfigError:
    return ConfigError("command line", "--plot", str(path), expected)
