"""How tenants share what is short: whoever asks for least is served first, nobody gets more than asked for.

Of the work that tenants asked for lately a share cannot be done. What can be is divided max-min fair: there
is one level such that everybody gets what it asked for, up to that level times its weight. So those furthest
over their fair share lose first and most, and who asks for less than that loses nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMORY_SECONDS = 20.0
"""What was asked fades with this time constant: some requests' time, so that a burst does not look like a
habit, and a habit is seen within one window of budgets."""

TENANTS_MAX = 1000
"""Tenants told apart; those that come when so many asked lately share one account."""

FRESH_SECONDS = 0.2
"""Who gets how much is worked out again after this time."""

NEAR = 0.02
"""Or when the share that cannot be done has changed by more than this."""

OTHERS = "\0others"
"""The account of those that are one too many; no tenant can have this name, since headers hold no NUL."""

_NOTHING = 1.0
"""Token: who asked for less than that lately is forgotten."""


class Shares:
    """Tokens that tenants asked for lately."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights` of tenants, 1 where they say nothing."""
        self._weights = weights
        self._asked: dict[str, float] = {}
        self._at = float("-inf")
        self._denied: dict[str, float] = {}  # the share of each one's work that is not done
        self._for_share, self._shared_at = -1.0, float("-inf")  # what that was found for, and when

    def account(self, tenant: str) -> str:
        """The name under which the tenant is counted: its own, while there is room."""
        return tenant if tenant in self._asked or len(self._asked) < TENANTS_MAX else OTHERS

    def ask(self, tenant: str, tokens: float, now: float) -> None:
        """A request of `tenant` asks for so many tokens of prompt and answer."""
        self._fade(now)
        account = self.account(tenant)
        self._asked[account] = self._asked.get(account, 0.0) + tokens

    def denied(self, tenant: str, share: float, now: float) -> float:
        """The share of this tenant's work that is not done where that is `share` of everybody's, 0..1."""
        self._fade(now)
        if abs(self._for_share - share) > NEAR or not 0 <= now - self._shared_at < FRESH_SECONDS:
            self._share_out(share, now)
        return self._denied.get(self.account(tenant), share)

    def _share_out(self, share: float, now: float) -> None:
        """Find the tokens for each unit of weight with which (1 - share) of all that was asked is done."""
        left = (1 - share) * sum(self._asked.values())
        weight = sum(map(self._weight, self._asked))
        level = math.inf
        for account in sorted(self._asked, key=lambda account: self._asked[account] / self._weight(account)):
            asked, own = self._asked[account], self._weight(account)
            if asked * weight > left * own:
                level = max(0.0, left) / weight
                break
            left -= asked
            weight -= own
        self._denied = {t: max(0.0, 1 - level * self._weight(t) / a) for t, a in self._asked.items()}
        self._for_share, self._shared_at = share, now

    def _weight(self, account: str) -> float:
        return self._weights.get(account, 1.0)

    def _fade(self, now: float) -> None:
        if now - self._at < FRESH_SECONDS:
            return
        left = math.exp(-(now - self._at) / MEMORY_SECONDS)
        self._asked = {t: a * left for t, a in self._asked.items() if a * left > _NOTHING}
        self._at = now
