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
    """One prefill that ended at `at`; learned from once it is known how much work it was."""

    at: float
    placed_at: float = field(compare=False)
    decodes: int = field(compare=False, default=0)
    learnable: bool = field(compare=False, default=True)  # what was ahead of it is known, too
    tokens: float | None = field(compare=False, default=None)  # without a match; None until confirmed
    busy: float | None = field(compare=False, default=None)  # seconds it took; None until settled


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
            self.tpot += TPOT_SHARE * (_bounded(seconds / tokens, self.tpot) - self.tpot)

    def observe(self, first_token: FirstToken) -> None:
        """A first token was reported."""
        heapq.heappush(self._heap, first_token)

    def confirm(self, first_token: FirstToken, tokens: float) -> None:
        """The answer is over: its prefill was the work of so many `tokens`, as far as anybody knows."""
        first_token.tokens = tokens
        if first_token.busy is not None:
            self._learn(first_token, tokens, first_token.busy)

    def settle(self, now: float) -> None:
        """Work out how long each prefill took, once none before it can still be unreported."""
        while self._heap and self._heap[0].at <= now - self._news_delay:
            first_token = heapq.heappop(self._heap)
            began = max(first_token.placed_at, self._last_at)
            self._last_at = max(self._last_at, first_token.at)
            first_token.busy = first_token.at - began
            if first_token.tokens is not None:
                self._learn(first_token, first_token.tokens, first_token.busy)

    def _learn(self, first_token: FirstToken, tokens: float, busy: float) -> None:
        if not first_token.learnable or tokens < LEAST_TOKENS:
            return
        work = tokens * (1 + SLOWDOWN_PER_DECODE * first_token.decodes)
        time = _bounded(busy - REQUEST_OVERHEAD_SECONDS, work / self.prefill)
        self._work = DECAY * self._work + work
        self._time = DECAY * self._time + time
        self.prefill = self._work / self._time
        self.observations += 1


def _bounded(value: float, expected: float) -> float:
    return min(max(value, expected / OUTLIER_FACTOR), expected * OUTLIER_FACTOR)
