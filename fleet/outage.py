"""Something away is said once, not once a second."""

from __future__ import annotations

import logging

_LOG = logging.getLogger(__name__)


class Outage:
    """Tells the log when `what` goes away and when it is back, and nothing in between."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._away = False

    def failed(self, error: Exception) -> None:
        """It did not work now."""
        if not self._away:
            _LOG.warning("%s is away, going on without: %s", self._what, error)
        self._away = True

    def worked(self) -> None:
        """It worked now."""
        if self._away:
            _LOG.info("%s is back", self._what)
        self._away = False
