from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from fleet.errors import StoreError
from fleet.outage import StoreOutage


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def attempt(outage: StoreOutage, error: Exception | None = None) -> None:
    with outage.tolerated():
        if error is not None:
            raise error


def test_says_once_that_the_store_went_away_and_once_that_it_is_back(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    outage = StoreOutage(registry, "test")
    with caplog.at_level(logging.INFO):
        attempt(outage)
        for _ in range(3):
            attempt(outage, StoreError("no route"))
        assert registry.get_sample_value("test_store_up") == 0
        attempt(outage)
        attempt(outage)
    assert [r.message for r in caplog.records] == [
        "going on without the store: no route",
        "the store is back",
    ]
    assert registry.get_sample_value("test_store_up") == 1
    assert registry.get_sample_value("test_store_failures_total") == 3


def test_lets_every_other_error_through(registry: CollectorRegistry) -> None:
    outage = StoreOutage(registry, "test")
    with pytest.raises(ZeroDivisionError):
        attempt(outage, ZeroDivisionError())
