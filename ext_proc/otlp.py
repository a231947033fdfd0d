"""Spans as OTLP's JSON over HTTP.

OpenTelemetry's own exporters need the package opentelemetry-proto, whose files xds-protos ships in an older
version at the same place: which of them is installed last wins. JSON needs neither.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""For one batch: it is sent in a thread of its own, but an end of the process waits for the last."""

SPAN_KIND_INTERNAL = 1
"""Of OTLP's enum."""


class JsonExporter(SpanExporter):
    """Posts batches to `endpoint`; what cannot be sent is dropped, and said once until something can."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch."""
        if not spans:
            return SpanExportResult.SUCCESS
        request = urllib.request.Request(  # noqa: S310 - the settings allow http and https alone
            self._endpoint,
            json.dumps(message(spans)).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
                pass
        except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
            if not self._failing:
                _log.warning("spans are dropped: %s: %s", self._endpoint, error)
            self._failing = True
            return SpanExportResult.FAILURE
        self._failing = False
        return SpanExportResult.SUCCESS


def message(spans: Sequence[ReadableSpan]) -> dict[str, object]:
    """An ExportTraceServiceRequest. Ids are hexadecimal and times text: OTLP wants it so in JSON."""
    scope = {"scope": {"name": "kvpilot"}, "spans": [_span(span) for span in spans]}
    resource = {"attributes": _pairs(spans[0].resource.attributes)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _span(span: ReadableSpan) -> dict[str, object]:
    return {
        "traceId": f"{span.context.trace_id:032x}",
        "spanId": f"{span.context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": SPAN_KIND_INTERNAL,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _pairs(span.attributes or {}),
    }


def _pairs(attributes: object) -> list[dict[str, object]]:
    items = dict(attributes).items()  # type: ignore[call-overload]
    return [
        {
            "key": key,
            "value": {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)},
        }
        for key, value in items
    ]
