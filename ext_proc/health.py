"""When an endpoint is left out of picks, and when it is tried again.

Envoy's override_host sends a pick even to a host that Envoy knows is unhealthy, so the picker must leave
it out by itself. Failures come from the access log: an endpoint that a retry had to step over, or that
broke the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES_TO_EJECT = 2
"""In a row. One may be a connection that the engine closed while idle."""

FIRST_EJECTION_SECONDS = 1.0
LONGEST_EJECTION_SECONDS = 30.0
"""An ejection doubles each time a probe fails: a restarting pod is found again within its own start time."""

PROBE_SECONDS = 5.0
"""A probe nobody heard of for this long counts as lost, and another may go."""


@dataclass(slots=True)
class Health:
    """One endpoint's standing. Times are seconds on the caller's clock."""

    failures: int = 0  # in a row
    ejected_until: float = 0.0
    ejection_seconds: float = FIRST_EJECTION_SECONDS
    probe_until: float = 0.0
    failed_at: float = float("-inf")  # the last time

    @property
    def ejected(self) -> bool:
        """Whether only probes go there, since its failures."""
        return self.failures >= FAILURES_TO_EJECT

    def usable(self, now: float) -> bool:
        """Whether a pick may go there at `now`: it is well, or due for its one probe."""
        return not self.ejected or (now >= self.ejected_until and now >= self.probe_until)

    def picked(self, now: float) -> None:
        """A request goes there; if the endpoint is ejected, it is the probe."""
        if self.ejected:
            self.probe_until = now + PROBE_SECONDS

    def failed(self, now: float) -> bool:
        """A request failed there. True if that ejects it just now."""
        self.failures += 1
        self.failed_at = now
        if not self.ejected:
            return False
        first = self.failures == FAILURES_TO_EJECT
        if first or self.probe_until > 0:  # failures of requests that were already under way count once
            self.ejected_until = now + self.ejection_seconds
            self.ejection_seconds = min(2 * self.ejection_seconds, LONGEST_EJECTION_SECONDS)
        self.probe_until = 0.0
        return first

    def succeeded(self, placed_at: float) -> None:
        """A request that went there at `placed_at` is answered; one from before a failure proves nothing."""
        if placed_at < self.failed_at:
            return
        self.failures = 0
        self.probe_until = 0.0
        self.ejection_seconds = FIRST_EJECTION_SECONDS
