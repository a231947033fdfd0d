"""The demo's result for people: a table of the phases, bars of their TTFT, and who did the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvpilot.demo.report import PHASES, PhaseFigures
from kvpilot.table import seconds_text, share_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.settings import Steering
    from kvpilot.demo.report import EndpointFigures

BAR_WIDTH = 40
"""Characters of the longest bar: with labels and figures a line fits in 80 columns."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


def show(results: Mapping[Steering, PhaseFigures], console: Console) -> None:
    """Print everything to `console`."""
    console.print(render(results))


def render(results: Mapping[Steering, PhaseFigures]) -> RenderableType:
    """Table, bars and endpoints, one under the other."""
    told = {phase: results[phase] for phase in PHASES if phase in results}
    parts: list[RenderableType] = [_table(told), Text()]
    for title, name in (("TTFT mean", "ttft_mean_s"), ("TTFT p99", "ttft_p99_s")):
        parts += [Text(title, style="bold"), *_bars({p: getattr(f, name) for p, f in told.items()}), Text()]
    parts.append(_endpoints(told))
    return Group(*parts)


def _table(told: Mapping[Steering, PhaseFigures]) -> Table:
    table = _lean_table("Three ways of steering the same load")
    table.add_column("phase", no_wrap=True)
    for column in ("requests", "failed", "req/s", "TTFT\nmean", "\np50", "\np99", "e2e\np99", "cached"):
        table.add_column(column, justify="right", no_wrap=True)
    for phase, one in told.items():
        table.add_row(
            phase,
            str(one.requests),
            str(one.failed),
            f"{one.requests_per_s:.1f}",
            *(seconds_text(v) for v in (one.ttft_mean_s, one.ttft_p50_s, one.ttft_p99_s, one.e2e_p99_s)),
            share_text(one.cached_token_ratio),
        )
    return table


def _lean_table(title: str) -> Table:
    """Narrow enough for 80 columns."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _bars(values: Mapping[Steering, float | None]) -> list[Text]:
    longest = max((value for value in values.values() if value), default=0.0)
    base = values.get("round_robin")
    lines = []
    for phase, value in values.items():
        line = Text(f"  {phase:<12}{seconds_text(value):>9}  ")
        if value is not None and longest:
            line.append(bar(value / longest), style="green" if phase == "steered" else "blue")
            line.append(f"  {value / base:.2f} of round robin" if base and phase != "round_robin" else "")
        lines.append(line)
    return lines


def bar(share: float) -> str:
    """A bar as long as `share`, 0..1, of BAR_WIDTH, to an eighth of a character."""
    eighths = round(share * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _endpoints(told: Mapping[Steering, PhaseFigures]) -> Table:
    """Addresses change from mesh to mesh: endpoints are told apart by their place in the fleet."""
    table = _lean_table("Requests, cached prompt tokens, prefill busy")
    table.add_column("endpoint")
    for phase in told:
        table.add_column(phase, justify="right")
    columns = [list(one.per_endpoint.values()) for one in told.values()]
    for row in zip(*columns, strict=True):
        table.add_row(f"{row[0].hardware} {row[0].version}", *(_endpoint_text(one) for one in row))
    return table


def _endpoint_text(one: EndpointFigures) -> str:
    return f"{one.requests} · {share_text(one.cached_token_ratio)} · {share_text(one.prefill_busy)}"
