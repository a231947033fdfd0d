"""Learning how long one output token takes at an endpoint, and what prefills beside it cost a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.rates import OUTLIER_FACTOR, bounded

if TYPE_CHECKING:
    from fleet.cost_model import CostModel

SHARE = 0.05
"""What one answer counts for: a memory of about 20."""

MEANS_MIN = 5
"""Answers before their mean is one to compare others with."""


class DecodeLearner:
    """One endpoint's mean time per output token (seconds), under the load that it has."""

    def __init__(self, prior: float, costs: CostModel) -> None:
        self.tpot = prior
        self._costs = costs
        self._prefill = 0.0  # mean seconds of prefill beside a stream, per output token
        self._answers = 0

    def observe(self, seconds: float, tokens: float, prefill_seconds: float | None) -> None:
        """An answer's `tokens` after its first took so many seconds, in which others were prefilled for
        `prefill_seconds`; None where that is not known."""
        if tokens < 1 or seconds <= 0:
            return
        per_token = bounded(seconds / tokens, self.tpot, OUTLIER_FACTOR)
        self._answers += 1
        share = max(SHARE, 1 / (self._answers + 1))
        if prefill_seconds is not None:
            prefill = min(prefill_seconds, seconds) / tokens
            if self._answers > MEANS_MIN:
                self._costs.observe_stream(
                    (prefill - self._prefill) / self.tpot, (per_token - self.tpot) / self.tpot
                )
            self._prefill += share * (prefill - self._prefill)
        self.tpot += share * (per_token - self.tpot)
