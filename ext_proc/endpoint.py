"""All that the picker knows of one endpoint, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.demand import Demand
from ext_proc.health import Health
from ext_proc.residency import Residency
from ext_proc.traffic import RecentTraffic
from fleet.decoding import DecodeLearner
from fleet.ledger import Ledger
from fleet.model import Rate, Traffic
from fleet.rates import RateLearner

if TYPE_CHECKING:
    from fleet.cost_model import CostModel
    from fleet.model import Endpoint, Load

TRUST_SHARE = 0.1
"""What one answer counts for in how far an endpoint's matches are believed: a memory of about ten."""


class EndpointState:
    """One endpoint's ledger, learned rates, health and last scrape. Clocks are the picker's own."""

    __slots__ = (
        "_changed",
        "_load_at",
        "_stale_after",
        "costs",
        "decoding",
        "demand",
        "endpoint",
        "health",
        "ledger",
        "load",
        "rates",
        "residency",
        "row",
        "traffic",
        "trust",
    )

    def __init__(self, endpoint: Endpoint, costs: CostModel, news_delay: float, stale_after: float) -> None:
        """In seconds: first tokens are heard of within `news_delay`, scrapes count for `stale_after`.

        `costs` is shared by all endpoints of the model.
        """
        self.endpoint = endpoint
        self.costs = costs
        self.ledger = Ledger(news_delay, costs)
        self.rates = RateLearner(endpoint.prior, news_delay, costs)
        self.decoding = DecodeLearner(endpoint.prior.tpot, costs)
        self.demand = Demand()
        self.health = Health()
        self.residency = Residency()
        self.traffic = RecentTraffic()
        self.load: Load | None = None
        self.trust = 1.0  # share of the matches predicted here that the engine confirmed, 0..1
        self._load_at = float("-inf")
        self._stale_after = stale_after
        self.row = 0
        self._changed: set[int] = set()

    def watch(self, row: int, changed: set[int]) -> None:
        """Whoever keeps a `row` for it wants to find that in `changed` when it must be written anew."""
        self.row, self._changed = row, changed

    def changed(self) -> None:
        """Its queue, its rate or its answers are not what they were."""
        self._changed.add(self.row)

    def observe(self, load: Load, now: float) -> None:
        """A scrape that was made at `now`."""
        self.load = load
        self._load_at = now

    def usable(self, now: float) -> bool:
        """Whether a pick may go there: not ejected, and not lately found down by the collector."""
        load = self.fresh_load(now)
        return (load is None or load.ready) and self.health.usable(now)

    def fresh_load(self, now: float) -> Load | None:
        """The last scrape, unless it is too old to say anything about `now`."""
        return self.load if now - self._load_at <= self._stale_after else None

    def confirm_match(self, believed: float, cached: float) -> None:
        """The engine said how many prompt tokens were `cached` where the index believed in so many."""
        if believed > 0:
            self.trust += TRUST_SHARE * (min(1.0, cached / believed) - self.trust)

    def record(self, at: float) -> Traffic:
        """What the picker saw lately, as a record of Unix time `at`."""
        return Traffic(
            at=at,
            in_flight=self.ledger.in_flight,
            match_ratio=self.traffic.match_ratio(),
            ttft_p50=self.traffic.ttft_quantile(0.5),
            ttft_p95=self.traffic.ttft_quantile(0.95),
        )

    def rate(self, at: float) -> Rate:
        """What was learned, as a record of Unix time `at`."""
        return Rate(self.rates.prefill, self.decoding.tpot, at, self.rates.observations)
