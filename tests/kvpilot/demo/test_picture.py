from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from kvpilot.demo.picture import BAR_WIDTH, bar, show
from kvpilot.demo.report import EndpointFigures, PhaseFigures

if TYPE_CHECKING:
    from fleet.settings import Steering


def _phase(mean: float | None, p99: float | None, address: str, cached: float | None = 0.5) -> PhaseFigures:
    one = EndpointFigures("H100-80GB-TP4", "stable", 120, cached, mean, 0.42)
    return PhaseFigures(120, 1, mean, mean, p99, p99, cached, 12.0, 0.75, {"HTTP 503": 1}, {address: one})


def _shown(results: dict[Steering, PhaseFigures]) -> str:
    console = Console(file=io.StringIO(), width=100)
    show(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


THREE: dict[Steering, PhaseFigures] = {
    "steered": _phase(0.1, 0.5, "127.0.0.1:3"),
    "weighted": _phase(0.2, 1.25, "127.0.0.1:2"),
    "round_robin": _phase(0.4, 2.5, "127.0.0.1:1"),
}


def test_bars_are_in_proportion_and_the_longest_is_full() -> None:
    assert bar(1.0) == "█" * BAR_WIDTH
    assert bar(0.5) == "█" * (BAR_WIDTH // 2)
    assert bar(0.0) == ""
    assert len(bar(0.26)) == 11


def test_phases_are_compared_to_round_robin_in_a_fixed_order() -> None:
    text = _shown(THREE)
    lines = [line for line in text.splitlines() if "of round robin" in line]
    assert [line.split()[0] for line in lines] == ["weighted", "steered", "weighted", "steered"]
    assert "0.25 of round robin" in lines[1]
    assert "0.20 of round robin" in lines[3]
    assert "400 ms" in text
    assert "2.50 s" in text


def test_bars_begin_in_the_same_column_and_fit_a_terminal() -> None:
    lines = [line for line in _shown(THREE).splitlines() if "█" in line]
    assert len({line.index("█") for line in lines}) == 1
    assert max(len(line) for line in lines) <= 80 + len("  0.25 of round robin")


def test_an_endpoint_is_one_row_across_phases_whose_addresses_differ() -> None:
    rows = [line for line in _shown(THREE).splitlines() if "H100-80GB-TP4" in line]
    assert len(rows) == 1
    assert rows[0].count("120 · 50% · 42%") == 3


def test_a_phase_in_which_nothing_was_answered_is_shown_without_figures() -> None:
    nothing = _phase(None, None, "127.0.0.1:1", cached=None)
    text = _shown({"round_robin": nothing, "weighted": nothing, "steered": nothing})
    assert "nan" not in text.lower()
    assert "None" not in text
