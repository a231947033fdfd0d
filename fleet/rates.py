"""Learning how fast an endpoint prefills, from when its first tokens came.

TTFT against prompt length would learn the queue. What is fitted is work against busy time: a prefill
began when it was placed or when the one before it ended, whichever is later, so each first token adds its
tokens to one sum and the time since to another. Both decay; their ratio is the rate. The prior counts as
some work already seen.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from fleet.ledger import REQUEST_OVERHEAD_SECONDS, SLOWDOWN_PER_DECODE
from fleet.model import Rate

DECAY = 0.96
"""What one observation leaves of those before: a memory of about 25, to follow a change within 20."""

PRIOR_TOKENS = 8_000.0
"""Work the prior stands for: about one long prompt, so a handful of requests overrule it."""

LEAST_TOKENS = 128.0
"""Smaller prefills tell of overheads, not of the rate."""

TPOT_SHARE = 0.05
"""What one answer counts for in the time per output token: a memory of about 20."""

OUTLIER_FACTOR = 8.0
"""One observation counts at most this much slower or faster than the rate believed so far."""


@dataclass(order=True, slots=True)
class FirstToken:
    """One prefill that ended. `tokens` (those without a match) may be corrected until it is learned from."""

    at: float
    placed_at: float = field(compare=False)
    tokens: float = field(compare=False)
    decodes: int = field(compare=False, default=0)
    learnable: bool = field(compare=False, default=True)  # nothing unreported was ahead of it


class RateLearner:
    """One endpoint's prefill rate (tokens a second) and time per output token (seconds)."""

    def __init__(self, prior: Rate, news_delay: float) -> None:
        """`news_delay`: seconds after which no earlier first token will be heard of any more."""
        self.tpot = prior.tpot
        self.prefill = prior.prefill  # tokens a second believed now
        self._news_delay = news_delay
        self._work = PRIOR_TOKENS
        self._time = PRIOR_TOKENS / prior.prefill
        self._heap: list[FirstToken] = []
        self._last_at = float("-inf")
        self.observations = 0

    def rate(self, at: float) -> Rate:
        """The rate as a record of Unix time `at`."""
        return Rate(self.prefill, self.tpot, at, self.observations)

    def observe_decode(self, seconds: float, tokens: float) -> None:
        """An answer's `tokens` after its first one took so many seconds."""
        if tokens >= 1 and seconds > 0:
            self.tpot += TPOT_SHARE * (seconds / tokens - self.tpot)

    def observe(self, first_token: FirstToken) -> None:
        """A first token was reported; it is learned from once all before it must have been, too."""
        heapq.heappush(self._heap, first_token)

    def settle(self, now: float) -> None:
        """Learn from every first token old enough that none before it is still unreported."""
        while self._heap and self._heap[0].at <= now - self._news_delay:
            self._learn(heapq.heappop(self._heap))

    def _learn(self, first_token: FirstToken) -> None:
        began = max(first_token.placed_at, self._last_at)
        self._last_at = max(self._last_at, first_token.at)
        if not first_token.learnable or first_token.tokens < LEAST_TOKENS:
            return
        work = first_token.tokens * (1 + SLOWDOWN_PER_DECODE * first_token.decodes)
        expected = work / self.prefill
        time = first_token.at - began - REQUEST_OVERHEAD_SECONDS
        time = min(max(time, expected / OUTLIER_FACTOR), expected * OUTLIER_FACTOR)
        self._work = DECAY * self._work + work
        self._time = DECAY * self._time + time
        self.prefill = self._work / self._time
        self.observations += 1
