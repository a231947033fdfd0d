"""The picker's Prometheus metrics, in a registry of their own so that tests can have many."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
        self.served = Counter(
            "kvpilot_picker_served",
            "Requests of gateways, by who served: as picked, the next of the list, other (the gateway did not"
            " obey), or unknown",
            ["by"],
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
