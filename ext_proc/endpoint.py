"""All that the picker knows of one endpoint, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.health import Health
from ext_proc.traffic import RecentTraffic
from fleet.ledger import Ledger
from fleet.model import Traffic
from fleet.rates import RateLearner

if TYPE_CHECKING:
    from fleet.model import Endpoint, Load


class EndpointState:
    """One endpoint's ledger, learned rate, health and last scrape. Clocks are the picker's own."""

    __slots__ = ("_load_at", "_stale_after", "endpoint", "health", "ledger", "load", "rates", "traffic")

    def __init__(self, endpoint: Endpoint, news_delay: float, stale_after: float) -> None:
        """In seconds: first tokens are heard of within `news_delay`, scrapes count for `stale_after`."""
        self.endpoint = endpoint
        self.ledger = Ledger(news_delay)
        self.rates = RateLearner(endpoint.prior, news_delay)
        self.health = Health()
        self.traffic = RecentTraffic()
        self.load: Load | None = None
        self._load_at = float("-inf")
        self._stale_after = stale_after

    def observe(self, load: Load, now: float) -> None:
        """A scrape that was made at `now`."""
        self.load = load
        self._load_at = now

    def usable(self, now: float) -> bool:
        """Whether a pick may go there: not ejected, and not lately found down by the collector."""
        down = self.load is not None and not self.load.ready and now - self._load_at <= self._stale_after
        return not down and self.health.usable(now)

    def record(self, at: float) -> Traffic:
        """What the picker saw lately, as a record of Unix time `at`."""
        return Traffic(
            at=at,
            in_flight=self.ledger.in_flight,
            match_ratio=self.traffic.match_ratio(),
            ttft_p50=self.traffic.ttft_quantile(0.5),
            ttft_p95=self.traffic.ttft_quantile(0.95),
        )
