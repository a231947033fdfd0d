from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleet.outage import Outage

if TYPE_CHECKING:
    import pytest


def test_says_once_that_something_went_away_and_once_that_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage("the store")
    with caplog.at_level(logging.INFO):
        outage.worked()
        for _ in range(3):
            outage.failed(OSError("no route"))
        outage.worked()
        outage.worked()
    assert [r.message for r in caplog.records] == [
        "the store is away, going on without: no route",
        "the store is back",
    ]
