from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ext_proc.tracing import Tracer, open_tracer, sampled_parent
from fleet.errors import StartError
from tests.ext_proc.test_reporter import CANARY, steered_stream

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


def spans_for(traceparent: str, content: str = "hi") -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter)
    stream = steered_stream(content)
    stream._headers |= {"traceparent": traceparent, "x-request-id": "r-1"}
    tracer.pick(stream, "steered", 0.25)
    tracer.close()
    return list(exporter.get_finished_spans())


def test_a_pick_is_a_span_in_the_trace_that_the_mesh_began() -> None:
    (span,) = spans_for(SAMPLED)
    assert span.name == "kvpilot.pick"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 250_000_000
    assert abs(span.end_time / 1e9 - time.time()) < 30


def test_it_says_what_was_decided_and_nothing_of_the_prompt_or_session() -> None:
    (span,) = spans_for(SAMPLED, CANARY)
    attributes = dict(span.attributes or {})
    assert attributes["kvpilot.outcome"] == "steered"
    assert attributes["kvpilot.cluster"] == "llama/stable"
    assert attributes["kvpilot.request_id"] == "r-1"
    assert str(attributes["kvpilot.endpoint"]).startswith("10.0.0.")
    assert attributes["kvpilot.match_ratio"] == 0.0
    assert set(attributes) >= {"kvpilot.predicted_ttft_seconds", "kvpilot.held_seconds", "kvpilot.model"}
    assert CANARY not in repr(attributes)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE}-{SPAN}-00",  # not sampled
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        "x" * 10_000,
    ],
)
def test_a_trace_that_is_not_sampled_or_no_trace_gets_no_span(traceparent: str) -> None:
    assert sampled_parent(traceparent) is None
    assert spans_for(traceparent) == []


def test_a_later_version_of_the_header_may_say_more() -> None:
    assert sampled_parent(f"01-{TRACE}-{SPAN}-03-more") == (int(TRACE, 16), int(SPAN, 16))


def test_without_the_extra_it_says_in_one_line_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ext_proc.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(StartError, match=r"picker.tracing needs OpenTelemetry.*kvpilot\[tracing\]"):
        open_tracer("http://127.0.0.1:4318/v1/traces")
