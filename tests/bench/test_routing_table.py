from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from routing_plan import OURS, PEERS, Run
from routing_ratios import AFTER_500, METRICS
from routing_table import put, sections

if TYPE_CHECKING:
    from routing_runs import Figures


def run(policy: str, fleet: str = "mixed8") -> Run:
    return Run("cases", "standard", fleet, "chat", 1.6, 1, policy)


def figures(time: float) -> Figures:
    return {**dict.fromkeys((*METRICS, AFTER_500), time), "token_hit_ratio": 0.5, "rejected": 0}


def cells(markdown: str, first: str) -> list[str]:
    """The cells of the row that begins so."""
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_case_shows_its_ratios_and_a_fleet_what_it_was_to_reach() -> None:
    runs = {run(OURS): figures(0.6), **{run(peer): figures(1.0) for peer in PEERS}}
    text = sections(runs)["cases"]
    assert cells(text, "chat")[:8] == ["chat", "1.6", "-", "0.60", "0.60", "0.60", "0.60", min(PEERS)]
    assert cells(text, "TTFT mean")[1:] == ["0.600", "≤ 0.65", "reached"]
    assert cells(text, "TTFT p99")[1:] == ["0.600", "≤ 0.50", "**not reached**"]
    assert "Not all have run" not in text


def test_a_ratio_just_above_its_target_is_not_reached_and_does_not_look_so() -> None:
    runs = {run(OURS): figures(0.652), run("lmetric"): figures(1.0)}
    assert cells(sections(runs)["cases"], "TTFT mean")[1:] == ["0.652", "≤ 0.65", "**not reached**"]


def test_peers_that_have_not_run_are_told_of() -> None:
    text = sections({run(OURS): figures(0.6), run("lmetric"): figures(1.0)})["cases"]
    assert "only 1 of 8 peers" in text


def test_what_nobody_measured_is_not_called_reached() -> None:
    text = sections({run(OURS): figures(0.6)})["cases"]
    assert cells(text, "TTFT mean")[1:] == ["-", "≤ 0.65", "not measured"]


def test_a_case_in_which_ours_rejected_requests_is_marked_and_reaches_nothing() -> None:
    runs = {run(OURS): {**figures(0.1), "rejected": 2}, run("lmetric"): figures(1.0)}
    text = sections(runs)["cases"]
    assert cells(text, "chat")[3:7] == ["**failed**"] * 4
    assert cells(text, "TTFT mean")[1:] == ["-", "≤ 0.65", "**failed**"]
    assert "**Failed** in 1 cases: ours rejected 2 requests" in text


def test_the_worst_case_of_learned_rates_is_shown_without_a_verdict() -> None:
    runs = {run(OURS): figures(1.2), run("kvpilot_true_rates"): figures(1.0)}
    text = sections(runs)["cases"]
    assert cells(text, "the same, worst case (chat at 1.6)")[1:] == ["1.200", "", ""]


@pytest.mark.parametrize(
    ("peer", "verdict"), [(4.0, "reached"), (2.0, "**not reached**"), (None, "not measured")]
)
def test_at_the_longest_lag_our_replicas_must_be_below_every_peer(peer: float | None, verdict: str) -> None:
    times = {"kvpilot": 1.0, "kvpilot_replicas4_lag100": 2.0, "lmetric_replicas4_lag100": peer}
    runs = {
        Run("replicas", "standard", "mixed8", "chat", 1.6, 1, policy): figures(time)
        for policy, time in times.items()
        if time
    }
    lines = [line for line in sections(runs)["replicas"].splitlines() if "kvpilot_replicas4_lag100" in line]
    assert lines == [
        f"| standard | mixed8 | kvpilot_replicas4_lag100 | 1 | 2.00 | below every peer: {verdict} | 2.00 |"
    ]


def test_losses_are_listed_by_case_policy_and_metric() -> None:
    text = sections({run(OURS): figures(1.0), run("lmetric"): figures(0.8)})["cases"]
    assert "- chat at 1.6: 1.250 of lmetric's TTFT mean" in text
    assert "No case is lost" not in text


def test_all_rows_of_a_table_are_equally_wide() -> None:
    runs = {run(OURS, fleet): figures(0.6) for fleet in ("mixed8", "uniform8")}
    burst = Run("burst", "standard", "mixed8", "groups", 1.15, 1, OURS)
    names = ("most_over_fair", "prefilled_on", "ttft_mean_s", "last_token_s", "rejected")
    found = sections({**runs, burst: dict.fromkeys(names, 1.0)})
    assert list(found) == ["cases", "burst"]
    for table in "\n\n".join(found.values()).split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_section_replaces_only_its_own_part_of_a_document() -> None:
    document = "before\n<!-- burst -->\nold\n<!-- end of burst -->\nafter\n"
    assert put(document, "burst", r"new \1") == (
        "before\n<!-- burst -->\nnew \\1\n<!-- end of burst -->\nafter\n"
    )
    assert put(document, "cases", "new") is None
