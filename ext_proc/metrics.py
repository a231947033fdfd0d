"""The picker's Prometheus metrics, in a registry of their own so that tests can have many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ext_proc.tallies import Tallies

_TTFT_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # seconds: from a cache hit to a long queue


_HOLD_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)  # seconds: up to picker.hold_seconds


class PickerMetrics:
    """Counters of what became of requests and of the news about them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kvpilot_picker_requests",
            "Requests shown to the picker, by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self.predicted_ttft = Histogram(
            "kvpilot_picker_predicted_ttft_seconds",
            "Time to first token predicted for the endpoint picked",
            buckets=_TTFT_BUCKETS,
            registry=self.registry,
        )
        self.held = Gauge(
            "kvpilot_picker_held", "Requests waiting here for an endpoint's queue", registry=self.registry
        )
        self.held_seconds = Histogram(
            "kvpilot_picker_held_seconds",
            "How long requests that had to wait here did so",
            buckets=_HOLD_BUCKETS,
            registry=self.registry,
        )
        self.log_entries = Counter(
            "kvpilot_picker_log_entries",
            "Access-log entries, by whether they belonged to an outstanding pick",
            ["result"],
            registry=self.registry,
        )
        self.expired = Counter(
            "kvpilot_picker_expired",
            "Requests given up because nobody reported their end",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "kvpilot_picker_in_flight", "Requests placed and not over yet", registry=self.registry
        )
        self.known_blocks = Gauge(
            "kvpilot_picker_known_blocks",
            "Distinct prefix blocks that some endpoint is believed to hold",
            registry=self.registry,
        )

    def show(self, tallies: Tallies) -> None:
        """Show what is counted there, whenever the metrics are read."""
        self.registry.register(_Shown(tallies))


class _Shown(Collector):
    """Counters that live in `Tallies`: an increment there costs a tenth of one here."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The counters as they are now."""
        yield _family(
            "kvpilot_picker_protocol_requests",
            "Requests read, by protocol and what became of them at once",
            "outcome",
            self._tallies.by_protocol,
        )
        yield _family(
            "kvpilot_picker_parse_failures",
            "Requests that could not be read, by protocol and reason",
            "reason",
            self._tallies.unreadable,
        )
        yield CounterMetricFamily(
            "kvpilot_picker_not_retriable",
            "Requests longer than what Envoy keeps for a retry",
            value=self._tallies.not_retriable,
        )


def _family(
    name: str, documentation: str, label: str, counts: Mapping[tuple[str, str], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=["protocol", label])
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    return family
