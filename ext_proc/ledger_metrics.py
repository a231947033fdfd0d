"""Every endpoint's account, read when Prometheus asks and not when it changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from ext_proc.endpoint import EndpointState
    from ext_proc.picker import Picker

GAUGES: dict[str, tuple[str, Callable[[EndpointState, float], float]]] = {
    "in_flight": ("Requests placed there and not over", lambda s, _: s.ledger.in_flight),
    "owed_tokens": (
        "Prompt tokens placed there and not computed, as far as is known",
        lambda s, _: s.ledger.owed,
    ),
    "prefill_rate": ("Prompt tokens a second, as learned", lambda s, _: s.rates.prefill),
    "match_trust": ("Share of the predicted matches that its engine confirmed", lambda s, _: s.trust),
    "usable": ("1 while picks may go there, else 0", lambda s, now: float(s.usable(now))),
}
"""By the end of the metric's name: what it says, and where it is read."""


class LedgerCollector(Collector):
    """`kvpilot_picker_endpoint_*` of one picker, as many samples as the fleet has endpoints."""

    def __init__(self, picker: Picker, registry: CollectorRegistry) -> None:
        self._picker = picker
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Names alone: registering needs no figures."""
        return [GaugeMetricFamily(f"kvpilot_picker_endpoint_{n}", h) for n, (h, _) in GAUGES.items()]

    def collect(self) -> Iterable[Metric]:
        """One gauge after the other. The page is made in a thread, so the endpoints are copied first."""
        now = time.monotonic()
        states = list(self._picker.endpoints.items())
        for name, (meaning, read) in GAUGES.items():
            family = GaugeMetricFamily(f"kvpilot_picker_endpoint_{name}", meaning, labels=["endpoint"])
            for address, state in states:
                family.add_metric([address], read(state, now))
            yield family
