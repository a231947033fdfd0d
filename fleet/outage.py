"""The store may be away: that is said once, counted, and nobody stops for it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from fleet.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

_LOG = logging.getLogger(__name__)


class StoreOutage:
    """Tells the log when the store goes away and when it is back; keeps a gauge and a counter."""

    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        """`prefix` begins the metrics' names."""
        self._failures = Counter(
            f"{prefix}_store_failures", "Calls to the store that failed", registry=registry
        )
        self._up = Gauge(f"{prefix}_store_up", "1 while the store answers, else 0", registry=registry)
        self._away = False

    @contextlib.contextmanager
    def tolerated(self) -> Iterator[None]:
        """What is done with the store inside may fail: a StoreError ends the block and goes no further."""
        try:
            yield
        except StoreError as error:
            if not self._away:
                _LOG.warning("going on without the store: %s", error)
            self._failures.inc()
            self._set(away=True)
        else:
            if self._away:
                _LOG.info("the store is back")
            self._set(away=False)

    def _set(self, *, away: bool) -> None:
        self._away = away
        self._up.set(not away)
