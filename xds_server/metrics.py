"""The xDS server's own Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class XdsMetrics:
    """One process's counters; each instance has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.streams = Gauge("kvpilot_xds_streams", "ADS streams open now", registry=r)
        self.pushes = Counter("kvpilot_xds_pushes", "Responses sent to Envoys", ["type"], registry=r)
        self.nacks = Counter("kvpilot_xds_nacks", "Responses that Envoys refused", ["type"], registry=r)
        self.snapshot_age = Gauge(
            "kvpilot_xds_snapshot_age_seconds", "Since the snapshot was last made or confirmed", registry=r
        )
        self.scrapes = Counter("kvpilot_collect_scrapes", "Scrapes of endpoints", ["result"], registry=r)
