"""What the exchange between replicas shows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

    from ext_proc.events import SharedEvent

_LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)  # seconds; the target is 0.02


class ReplicationMetrics:
    """One picker process's counters, for all its models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """They are shown in `registry`."""
        self.events = Counter(
            "kvpilot_picker_events",
            "Routing events exchanged with other replicas",
            ["direction", "kind"],
            registry=registry,
        )
        self.lag = Histogram(
            "kvpilot_picker_event_lag_seconds",
            "From another replica's placement to its news here, by the store's clock",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.resyncs = Counter(
            "kvpilot_picker_resyncs",
            "Times that news was missed, and the others asked what is outstanding",
            ["reason"],
            registry=registry,
        )
        self.backlog = Gauge(
            "kvpilot_picker_event_backlog", "Events that wait to be published", ["model"], registry=registry
        )
        self.dropped = Counter(
            "kvpilot_picker_events_dropped",
            "Events that were not carried: `backlog` was full, or bytes were `unreadable`",
            ["reason"],
            registry=registry,
        )
        self.parked = Gauge(
            "kvpilot_picker_parked_log_entries",
            "Access-log entries that wait for another replica's placement",
            registry=registry,
        )
        self.parked_entries = Counter(
            "kvpilot_picker_late_log_entries",
            "Access-log entries that waited for another replica's placement, by what came of it",
            ["result"],
            registry=registry,
        )
        self.replicas = Gauge(
            "kvpilot_picker_replicas", "Replicas there, this one included", ["model"], registry=registry
        )
        self._counted = {"sent": self._children("sent"), "heard": self._children("heard")}

    def count(self, direction: str, events: Iterable[SharedEvent]) -> None:
        """So many events went or came."""
        children = self._counted[direction]
        for event in events:
            children[type(event).__name__].inc()

    def _children(self, direction: str) -> dict[str, Counter]:
        return {kind: self.events.labels(direction, kind.lower()) for kind in _KINDS}


_KINDS = (
    "Placed",
    "Began",
    "Moved",
    "Ended",
    "Cancelled",
    "Waits",
    "Left",
    "BlocksStored",
    "BlocksRemoved",
    "Standing",
    "Asked",
)
