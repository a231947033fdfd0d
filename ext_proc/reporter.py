"""What the picker's facts become: metrics, log lines and spans. Nothing of a prompt, no session, no key.

Decisions are logged at debug level; what went wrong, or far from what was predicted, at info.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fleet.logs import facts

if TYPE_CHECKING:
    from ext_proc.duplex import DuplexStream
    from ext_proc.metrics import PickerMetrics
    from ext_proc.outcome import Outcome
    from ext_proc.stream import PickStream
    from ext_proc.tracing import Tracer

    Exchange = PickStream | DuplexStream

_log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
REQUEST_ID_LENGTH_MAX = 64
"""Characters; a gateway's own are UUIDs, and longer ones come from clients."""

REMEMBERED = 65_536
"""Request ids kept for the lines about how requests end; the oldest of those that nobody ended go first."""

FAR_OFF_FACTOR = 4.0
FAR_OFF_SECONDS = 1.0
"""A first token is worth a line when it came so many times and so many seconds later than predicted."""

LINES_PER_SECOND = 10.0
LINES_AT_ONCE = 20.0
"""Of those at info: when everything fails, the metrics say how much does."""

ABANDONED = "abandoned"
"""The outcome of a request whose Envoy left before it had its answer."""


class Allowance:
    """How many lines may be written: some a second, and some more at once."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self.left_out = 0  # since the last one that was allowed
        self._per_second = per_second
        self._at_once = at_once
        self._left = at_once
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Whether one more may be written at `now`."""
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True


class Reporter:
    """Told of every decision that is sent, of every exchange's end, and of every pick's."""

    def __init__(self, metrics: PickerMetrics, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._request_ids: dict[str, str] = {}  # by pick
        self._allowance = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)

    def placed(self, stream: Exchange) -> None:
        """Envoy has the exchange's decision, if it came to one: what becomes of it is told with its name."""
        if stream.decision is not None:
            self._remember(stream.decision.id, stream)

    def shown(self, stream: Exchange, began: float, *, answered: bool) -> None:
        """An exchange that began at `began` is over; Envoy has what it was `answered`, or has left."""
        outcome = stream.outcome if answered else ABANDONED
        self._metrics.requests_by_outcome[outcome].inc()
        decision = stream.decision if answered else None
        if decision is not None:
            self._metrics.decided(decision.why, decision.predicted_ttft)
        if self._tracer is not None:
            self._tracer.pick(stream, outcome, time.monotonic() - began)
        if _log.isEnabledFor(logging.DEBUG):
            message = decision.explain() if decision is not None else "not steered"
            _log.debug("%s", message, extra=facts(**_facts(stream, outcome)))

    def over(self, outcome: Outcome) -> None:
        """A pick came to its end."""
        self._metrics.over(outcome)
        request_id = self._request_ids.pop(outcome.id, "")
        what = _remarkable(outcome)
        if not what or not _log.isEnabledFor(logging.INFO) or not self._allowance.take(time.monotonic()):
            return
        left_out, self._allowance.left_out = self._allowance.left_out, 0
        known = {
            "request_id": request_id,
            "pick_id": outcome.id,
            "picked": outcome.picked,
            "served": outcome.served,
            "attempts": outcome.attempts,
            "predicted_ttft": outcome.predicted_ttft,
            "ttft": outcome.ttft,
            "seconds": outcome.seconds,
        }
        _log.info("%s", what, extra=facts(**known, **({"left_out": left_out} if left_out else {})))

    def _remember(self, pick_id: str, stream: Exchange) -> None:
        if len(self._request_ids) >= REMEMBERED:
            del self._request_ids[next(iter(self._request_ids))]
        self._request_ids[pick_id] = request_id(stream)


def request_id(stream: Exchange) -> str:
    """The gateway's name for the request, '' where it gave none."""
    return stream.headers.get(REQUEST_ID, "")[:REQUEST_ID_LENGTH_MAX]


def held_seconds(stream: Exchange) -> float:
    """How long the request was held before its decision; 0 where it was not, or has none."""
    decision, held = stream.decision, stream.held
    return 0.0 if decision is None or held is None else decision.placed.at - held.arrived


def _facts(stream: Exchange, outcome: str) -> dict[str, object]:
    known: dict[str, object] = {
        "request_id": request_id(stream),
        "cluster": stream.cluster,
        "outcome": outcome,
    }
    decision = stream.decision
    if decision is not None:
        known |= {
            "pick_id": decision.id,
            "endpoint": decision.endpoints[0],
            "predicted_ttft": decision.predicted_ttft,
            "matched_tokens": decision.matched_tokens,
            "held_seconds": held_seconds(stream),
        }
    return known


def _remarkable(outcome: Outcome) -> str:
    """What is worth a line about a pick's end; '' for nothing."""
    if outcome.failed:
        return "failed at its endpoint"
    if outcome.fallback:
        return "Envoy went elsewhere than was picked"
    if outcome.attempts > 1:
        return "answered after retries"
    late = outcome.ttft is not None and outcome.ttft - outcome.predicted_ttft > FAR_OFF_SECONDS
    if late and outcome.ttft is not None and outcome.ttft > FAR_OFF_FACTOR * outcome.predicted_ttft:
        return "first token far later than predicted"
    return ""
