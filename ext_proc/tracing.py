"""A span for each pick, in the trace that the mesh has begun: only where the mesh's own span is sampled.

OpenTelemetry is an optional extra and imported only where `picker.tracing` is set. A span is made when the
exchange is over, and sent by a thread of its own.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from ext_proc.reporter import held_seconds, request_id
from fleet.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext

    from ext_proc.reporter import Exchange

TRACEPARENT = "traceparent"
SPAN = "kvpilot.pick"
SERVICE = "kvpilot-picker"
MODEL_LENGTH_MAX = 128
"""Characters of a model's name, which a client may make up."""

SAMPLED = 1
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?", re.ASCII)


def sampled_parent(traceparent: str) -> tuple[int, int] | None:
    """Trace and span id of a W3C `traceparent` that is sampled; None for any other, and for none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not int(found[3], 16) & SAMPLED:
        return None
    trace, span = int(found[1], 16), int(found[2], 16)
    return (trace, span) if trace and span else None


class Tracer:
    """Makes spans and hands them to `exporter`, in batches and in a thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an extra: only for those who use it
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._trace = trace
        self._provider = TracerProvider(resource=Resource({"service.name": SERVICE}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("kvpilot")

    def pick(self, stream: Exchange, outcome: str, seconds: float) -> None:
        """The exchange took the last `seconds`; `outcome` is a word for what became of the request."""
        parent = sampled_parent(stream.headers.get(TRACEPARENT, ""))
        if parent is None:
            return
        end = time.time_ns()
        span = self._tracer.start_span(
            SPAN,
            self._trace.set_span_in_context(self._trace.NonRecordingSpan(self._context(*parent))),
            attributes=_attributes(stream, outcome),
            start_time=end - int(seconds * 1e9),
        )
        span.end(end)

    def close(self) -> None:
        """Send what is left, for seconds at most, and end the thread. Blocks."""
        self._provider.shutdown()

    def _context(self, trace_id: int, span_id: int) -> SpanContext:
        flags = self._trace.TraceFlags(SAMPLED)
        return self._trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def open_tracer(endpoint: str) -> Tracer:
    """A tracer that sends to an OTLP endpoint (`http://host:4318/v1/traces`).

    Raises StartError where OpenTelemetry is not installed.
    """
    try:
        from ext_proc.otlp import JsonExporter  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            "picker.tracing needs OpenTelemetry, which is not installed: pip install 'kvpilot[tracing]'"
        ) from error
    return Tracer(JsonExporter(endpoint))


def _attributes(stream: Exchange, outcome: str) -> dict[str, str | float]:
    known: dict[str, str | float] = {
        "kvpilot.outcome": outcome,
        "kvpilot.cluster": stream.cluster,
        "kvpilot.request_id": request_id(stream),
    }
    decision = stream.decision
    if decision is not None:
        request = decision.placed.request
        known |= {
            "kvpilot.model": request.model[:MODEL_LENGTH_MAX],
            "kvpilot.endpoint": decision.endpoints[0],
            "kvpilot.predicted_ttft_seconds": decision.predicted_ttft,
            "kvpilot.match_ratio": decision.matched_tokens / max(1.0, request.prompt_tokens),
            "kvpilot.held_seconds": held_seconds(stream),
        }
    return known
