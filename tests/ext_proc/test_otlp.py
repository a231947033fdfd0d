"""Against a receiver on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult

from ext_proc.otlp import JsonExporter
from ext_proc.tracing import open_tracer
from tests.ext_proc.test_reporter import steered_stream
from tests.ext_proc.test_tracing import SAMPLED, SPAN, TRACE, spans_for
from tests.support import free_address

if TYPE_CHECKING:
    from collections.abc import Iterator


class Receiver(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Receiver)
        self.server.received.append((self.path, self.headers["content-type"], json.loads(data)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_span_arrives_as_otlp_json(receiver: Receiver) -> None:
    tracer = open_tracer(receiver.url)
    stream = steered_stream()
    stream._headers["traceparent"] = SAMPLED
    tracer.pick(stream, "steered", 0.25)
    tracer.close()
    ((path, kind, sent),) = receiver.received
    assert (path, kind) == ("/v1/traces", "application/json")
    (resource,) = sent["resourceSpans"]
    assert resource["resource"]["attributes"] == [
        {"key": "service.name", "value": {"stringValue": "kvpilot-picker"}}
    ]
    ((span,),) = (scope["spans"] for scope in resource["scopeSpans"])
    assert (span["traceId"], span["parentSpanId"], span["kind"]) == (TRACE, SPAN, 1)
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 250_000_000
    attributes = {pair["key"]: pair["value"] for pair in span["attributes"]}
    assert attributes["kvpilot.outcome"] == {"stringValue": "steered"}
    assert attributes["kvpilot.held_seconds"] == {"doubleValue": 0.0}


def test_a_receiver_that_is_away_costs_the_spans_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    exporter = JsonExporter(f"http://{free_address()}/v1/traces")
    for _ in range(3):
        assert exporter.export(spans_for(SAMPLED)) is SpanExportResult.FAILURE
    assert len([r for r in caplog.records if "spans are dropped" in r.getMessage()]) == 1


def test_nothing_is_sent_where_there_is_nothing(receiver: Receiver) -> None:
    assert JsonExporter(receiver.url).export([]) is SpanExportResult.SUCCESS
    assert receiver.received == []
