from __future__ import annotations

import pytest
from prometheus_client import Gauge, generate_latest

from ext_proc.metrics import PickerMetrics
from ext_proc.outcome import Outcome
from ext_proc.tallies import Tallies
from kvpilot.bench.counted import counted


def test_counts_as_steered_what_was_steered_by_its_prompt() -> None:
    metrics, tallies = PickerMetrics(), Tallies()
    metrics.show(tallies)  # another family of requests, with the same label
    tallies.by_protocol["chat", "steered"] = 1000
    for outcome, count in (("steered", 5), ("steered-early", 2), ("steered-unread", 2), ("abandoned", 1)):
        metrics.requests_by_outcome[outcome].inc(count)
    assert counted(generate_latest(metrics.registry).decode())["steered_share"] == pytest.approx(0.7)


def test_tells_what_did_not_end_as_it_should() -> None:
    metrics = PickerMetrics()
    metrics.in_flight.set(99)  # as it was some time ago
    ledgers = {"10.0.0.1:80": 1, "10.0.0.2:80": 2}
    metrics.known_blocks.set(1e7)
    metrics.log_entries_by_result["applied"].inc(4)
    metrics.log_entries_by_result["dropped"].inc(8)
    for served in ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80"):
        metrics.over(Outcome("i", "10.0.0.1:80", served, 1, False, True, 1.0, 1.0, 1.0, 1.0, 0.0, None))
    gauge = Gauge("kvpilot_picker_endpoint_in_flight", "", ["endpoint"], registry=metrics.registry)
    for address, count in ledgers.items():
        gauge.labels(address).set(count)
    figures = counted(generate_latest(metrics.registry).decode())
    assert figures.pop("steered_share") == 0
    assert figures == {"known_blocks": 1e7, "fallbacks": 2, "told_by_log": 4, "in_flight": 3}


def test_takes_what_was_never_counted_for_nothing() -> None:
    assert set(counted("").values()) == {0.0}
