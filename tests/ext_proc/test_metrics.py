from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ext_proc.choice import AT_HOME, CHEAPEST, LEAST_BUSY
from ext_proc.ledger_metrics import LedgerCollector
from ext_proc.metrics import PickerMetrics
from ext_proc.outcome import Outcome
from ext_proc.replication.metrics import ReplicationMetrics
from ext_proc.tallies import Tallies
from fleet.outage import StoreOutage
from tests.ext_proc.small import FAST, SLOW, make_picker

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ENDED = Outcome("id", FAST, FAST, 1, False, True, 1.0, 0.1, 0.4, 1000.0, 500.0, 250.0)


def value(metrics: PickerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"kvpilot_picker_{name}", labels)


def test_counts_decisions_by_a_few_words_for_the_reason() -> None:
    metrics = PickerMetrics()
    for why in (CHEAPEST, AT_HOME, LEAST_BUSY, LEAST_BUSY, "a reason of tomorrow"):
        metrics.decided(why, 0.1)
    counted = {w: value(metrics, "decisions_total", why=w) for w in ("cheapest", "session", "least-busy")}
    assert counted == {"cheapest": 1, "session": 1, "least-busy": 2}
    assert value(metrics, "decisions_total", why="other") == 1


def test_first_tokens_are_held_against_what_was_predicted() -> None:
    metrics = PickerMetrics()
    metrics.over(ENDED)  # 0.3 s late
    metrics.over(ENDED._replace(ttft=0.06))  # 0.04 s early
    assert value(metrics, "ttft_error_seconds_bucket", le="-0.1") == 0
    assert value(metrics, "ttft_error_seconds_bucket", le="-0.02") == 1
    assert value(metrics, "ttft_error_seconds_bucket", le="0.5") == 2
    assert value(metrics, "ttft_absolute_error_seconds_sum") == pytest.approx(0.34)
    assert value(metrics, "ttft_seconds_count") == 2


def test_matches_are_compared_only_where_the_engine_told() -> None:
    metrics = PickerMetrics()
    metrics.over(ENDED)
    metrics.over(ENDED._replace(cached_tokens=None))
    assert value(metrics, "predicted_match_ratio_sum") == 0.5
    assert value(metrics, "actual_match_ratio_sum") == 0.25
    assert value(metrics, "actual_match_ratio_count") == 1


def test_a_mesh_that_does_not_obey_shows_and_a_retry_is_no_disobedience() -> None:
    metrics = PickerMetrics()
    metrics.over(ENDED)
    metrics.over(ENDED._replace(served=SLOW))
    metrics.over(ENDED._replace(served=SLOW, attempts=3))
    metrics.over(ENDED._replace(failed=True))
    assert value(metrics, "picks_total") == 4
    assert value(metrics, "fallbacks_total") == 1
    assert value(metrics, "retries_total") == 2
    assert value(metrics, "failures_total") == 1


def test_failures_and_broken_answers_say_nothing_of_predictions() -> None:
    metrics = PickerMetrics()
    metrics.over(ENDED._replace(failed=True))
    metrics.over(ENDED._replace(answered=False))
    assert value(metrics, "ttft_seconds_count") == 0


def everything() -> CollectorRegistry:
    metrics = PickerMetrics()
    metrics.show(Tallies())
    StoreOutage(metrics.registry, "kvpilot_picker")
    StoreOutage(metrics.registry, "kvpilot_picker_leases")
    LedgerCollector(make_picker(), metrics.registry)
    ReplicationMetrics(metrics.registry)
    return metrics.registry


def test_the_page_lists_every_metric_of_the_picker_with_its_labels_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(kvpilot_picker_\w+)(?:\{([\w,]+)\})?` \|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    listed = dict(rows)
    assert len(listed) == len(rows)
    names = {
        metric.name + ("_total" if metric.type == "counter" else "") for metric in everything().collect()
    }
    assert listed.keys() == names


def test_every_metric_in_a_suggested_alarm_exists() -> None:
    known = {metric.name for metric in everything().collect()}
    expressions = re.findall(r"expr: (.*)", PAGE.read_text("utf-8"))
    assert expressions
    for expression in expressions:
        for name in re.findall(r"kvpilot_picker_\w+", expression):
            assert re.sub(r"_(total|bucket|sum|count)$", "", name) in known
