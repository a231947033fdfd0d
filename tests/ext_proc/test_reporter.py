from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from ext_proc.metrics import PickerMetrics
from ext_proc.outcome import Outcome
from ext_proc.picker import Picker
from ext_proc.reporter import LINES_AT_ONCE, LINES_PER_SECOND, Allowance, Reporter, held_seconds
from ext_proc.stream import PickStream
from ext_proc.waiting import Held
from tests.ext_proc.messages import body, headers
from tests.ext_proc.small import FAST, SLOW, make_picker, request
from tests.ext_proc.test_steer import CHAT, FLEET, SETTINGS, chat, make_steerer

if TYPE_CHECKING:
    from ext_proc.decision import Decision

CANARY = "the-canary-sings"
WELL = Outcome("id", FAST, FAST, 1, False, True, 1.0, 0.1, 0.2, 1000.0, 500.0, None)


def steered_stream(content: str = "hi") -> PickStream:
    """An exchange that got its decision."""
    stream = PickStream(make_steerer(Picker(SETTINGS, FLEET.endpoints.values())), 0.0)
    stream.receive(headers(path=CHAT), 1.0)
    stream.receive(body(chat(content)), 1.0)
    assert stream.decision is not None
    return stream


@pytest.fixture
def metrics() -> PickerMetrics:
    return PickerMetrics()


def counted(metrics: PickerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"kvpilot_picker_{name}_total", labels)


def test_counts_what_became_of_a_request_and_why_it_went_where(metrics: PickerMetrics) -> None:
    reporter = Reporter(metrics)
    reporter.shown(steered_stream(), 0.0, answered=True)
    assert counted(metrics, "requests", outcome="steered") == 1
    assert counted(metrics, "decisions", why="least-busy") == 1
    reporter.shown(steered_stream(), 0.0, answered=False)
    assert counted(metrics, "requests", outcome="abandoned") == 1
    assert counted(metrics, "decisions", why="least-busy") == 1


def test_a_decision_is_a_line_at_debug_with_its_facts_and_nothing_of_the_prompt_or_session(
    metrics: PickerMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    stream = steered_stream(CANARY)
    decision: Decision | None = stream.decision
    assert decision is not None
    with caplog.at_level(logging.DEBUG, logger="ext_proc.reporter"):
        Reporter(metrics).shown(stream, 0.0, answered=True)
    (line,) = caplog.records
    known = line.__dict__["facts"]
    assert known["endpoint"] == decision.endpoints[0]
    assert known["pick_id"] == decision.id
    assert known["cluster"] == "llama/stable"
    assert CANARY not in line.getMessage() + repr(known)
    assert "session" not in known


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (WELL, None),
        (WELL._replace(failed=True), "failed at its endpoint"),
        (WELL._replace(served=SLOW), "Envoy went elsewhere than was picked"),
        (WELL._replace(served=SLOW, attempts=2), "answered after retries"),
        (WELL._replace(ttft=2.0), "first token far later than predicted"),
        (WELL._replace(ttft=2.0, predicted_ttft=1.9), None),
    ],
)
def test_only_what_went_wrong_or_far_off_is_a_line_at_info(
    metrics: PickerMetrics, outcome: Outcome, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ext_proc.reporter"):
        Reporter(metrics).over(outcome)
    assert [record.getMessage() for record in caplog.records] == ([said] if said else [])


def test_the_end_of_a_pick_is_told_with_the_gateways_name_for_the_request(
    metrics: PickerMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    stream = steered_stream()
    stream._headers["x-request-id"] = "r-1"
    assert stream.decision is not None
    reporter = Reporter(metrics)
    reporter.placed(stream)
    with caplog.at_level(logging.INFO, logger="ext_proc.reporter"):
        reporter.over(WELL._replace(id=stream.decision.id, failed=True))
    assert caplog.records[0].__dict__["facts"]["request_id"] == "r-1"


def test_the_end_of_an_exchange_remembers_no_pick(metrics: PickerMetrics) -> None:
    reporter = Reporter(metrics)
    reporter.shown(steered_stream(), 0.0, answered=True)  # a gateway's pick is over by then
    reporter.placed(PickStream(make_steerer(Picker(SETTINGS, FLEET.endpoints.values())), 0.0))  # no decision
    assert not reporter._request_ids


def test_request_ids_are_forgotten_with_the_pick_and_bounded_where_it_never_ends(
    metrics: PickerMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ext_proc.reporter.REMEMBERED", 3)
    reporter = Reporter(metrics)
    streams = [steered_stream(f"{n}") for n in range(5)]
    for n, stream in enumerate(streams):
        reporter._remember(str(n), stream)
    assert list(reporter._request_ids) == ["2", "3", "4"]
    reporter.over(WELL._replace(id="3"))
    assert list(reporter._request_ids) == ["2", "4"]


def test_lines_are_spared_when_everything_fails() -> None:
    allowance = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)
    assert sum(allowance.take(10.0) for _ in range(100)) == LINES_AT_ONCE
    assert allowance.left_out == 100 - LINES_AT_ONCE
    assert sum(allowance.take(11.0) for _ in range(100)) == LINES_PER_SECOND


def test_how_long_a_request_was_held_is_from_its_arrival_to_its_decision() -> None:
    stream = steered_stream()
    assert held_seconds(stream) == 0.0
    decision = make_picker().pick(request(), 15.0)
    stream.decision, stream.held = decision, Held(request(), 12.5)
    assert held_seconds(stream) == 2.5
