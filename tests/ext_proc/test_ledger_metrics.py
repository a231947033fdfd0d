from __future__ import annotations

from prometheus_client import CollectorRegistry

from ext_proc.ledger_metrics import GAUGES, LedgerCollector
from tests.ext_proc.small import ENDPOINTS, FAST, SLOW, make_picker, pick, request


def test_shows_every_endpoints_account_as_it_is_when_asked() -> None:
    picker, registry = make_picker(), CollectorRegistry()
    LedgerCollector(picker, registry)

    def value(name: str, address: str) -> float | None:
        return registry.get_sample_value(f"kvpilot_picker_endpoint_{name}", {"endpoint": address})

    assert value("in_flight", FAST) == 0
    decision = pick(picker, request(), 1.0)
    assert (value("in_flight", FAST), value("in_flight", SLOW)) == (1, 0)
    owed = value("owed_tokens", FAST)
    assert owed is not None
    assert owed > 0
    assert value("usable", FAST) == 1
    picker.finish(decision.id, 2.0, endpoint=FAST)
    assert (value("in_flight", FAST), value("owed_tokens", FAST)) == (0, 0)


def test_makes_as_many_samples_as_the_fleet_has_endpoints() -> None:
    registry = CollectorRegistry()
    LedgerCollector(make_picker(), registry)
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    assert len(samples) == len(GAUGES) * len(ENDPOINTS)
