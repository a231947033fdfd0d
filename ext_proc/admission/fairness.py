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
"""The level is worked out again after this time."""

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
        self._level: tuple[float, float, float] = (-1.0, 0.0, float("-inf"))  # for which share, it, and when

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
        account = self.account(tenant)
        asked = self._asked.get(account, 0.0)
        if not asked:
            return share
        return max(0.0, 1 - self._fair(share, now) * self._weight(account) / asked)

    def _fair(self, share: float, now: float) -> float:
        """Tokens for each unit of weight, so that (1 - share) of all that was asked is done."""
        for_share, level, at = self._level
        if abs(for_share - share) < _SAME and 0 <= now - at < FRESH_SECONDS:
            return level
        left = (1 - share) * sum(self._asked.values())
        weight = sum(map(self._weight, self._asked))
        for asked, account in sorted((a / self._weight(t), t) for t, a in self._asked.items()):
            if asked * weight >= left:
                break
            left -= self._asked[account]
            weight -= self._weight(account)
        level = max(0.0, left) / weight if weight > _SAME else math.inf
        self._level = (share, level, now)
        return level

    def _weight(self, account: str) -> float:
        return self._weights.get(account, 1.0)

    def _fade(self, now: float) -> None:
        if now - self._at < FRESH_SECONDS:
            return
        left = math.exp(-(now - self._at) / MEMORY_SECONDS)
        self._asked = {t: a * left for t, a in self._asked.items() if a * left > _NOTHING}
        self._at = now


_SAME = 1e-3
"""Shares that differ by less than this are the same."""
