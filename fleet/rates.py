"""Learning how fast an endpoint prefills, from when its first tokens came.

TTFT against prompt length would learn the queue. What is fitted is work against busy time: a prefill
began when it was placed or when the one before it ended, whichever is later, so each first token adds its
work to one sum and the time since to another. Both decay; their ratio is the rate. The prior counts as
some work already seen.

A prefill counts as soon as no earlier first token can be unreported, with the match that was predicted, and
is put right when the answer's end tells what really was cached. Several in a row that are all much slower or
all much faster than believed mean that the endpoint has changed: then they alone count.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.cost_model import Means
from fleet.ledger import REQUEST_OVERHEAD_SECONDS

if TYPE_CHECKING:
    from fleet.cost_model import CostModel
    from fleet.model import Rate

DECAY = 0.98
"""What one observation leaves of those before. Most prefills count twice, when they settle and anew when they
are confirmed, so this is a memory of about 25; changes are followed faster (RUN)."""

PRIOR_TOKENS = 3_000.0
"""Work the prior stands for: about one prompt, so a handful of requests overrule it."""

PRIOR_SPREAD = 0.4
"""Relative standard deviation of a prior: what a data sheet knows of a real deployment."""

PRIOR_OBSERVATIONS = 4.0
"""After so many, half of the prior's variance is gone: the prior's work, in short prompts."""

LEAST_TOKENS = 128.0
"""Smaller prefills tell of overheads, not of the rate."""

WHOLE_TOKENS = 2_000.0
"""From this size on a prefill counts fully in what is learned of costs; noise weighs on smaller ones."""

OUTLIER_FACTOR = 8.0
"""One observation counts at most this much slower or faster than the rate believed so far."""

RUN = 4
"""So many in a row on one side are a change: by chance less than once in 10,000 at a spread of 0.15,"""

RUN_FACTOR = 1.25
"""if each is off by at least this."""


@dataclass(order=True, slots=True)
class FirstToken:
    """One prefill that ended at `at`, of `uncached` tokens after `matched`, as far as it is known."""

    at: float
    placed_at: float = field(compare=False)
    uncached: float = field(compare=False)
    matched: float = field(compare=False)
    decodes: int = field(compare=False, default=0)
    learnable: bool = field(compare=False, default=True)  # what was ahead of it is known, too
    confirmed: bool = field(compare=False, default=False)  # the tokens are what the engine says
    busy: float | None = field(compare=False, default=None)  # seconds it took; None until settled
    busy_before: float = field(compare=False, default=0.0)  # the endpoint's prefill seconds up to its end
    learned: bool = field(compare=False, default=False)  # it is among the observations
    counted: tuple[int, float, float] | None = field(compare=False, default=None)  # number, work, time


class RateLearner:
    """One endpoint's prefill rate: tokens a second at the start of a prompt, with nothing beside it."""

    def __init__(self, prior: Rate, news_delay: float, costs: CostModel) -> None:
        """`news_delay`: seconds after which no earlier first token will be heard of any more."""
        self.prefill = prior.prefill
        self.observations = 0  # prefills learned from
        self._counts = 0  # how often the sums decayed: a prefill that is confirmed counts anew
        self.busy_seconds = 0.0  # of prefills that ended, as far as settled
        self._costs = costs
        self._news_delay = news_delay
        self._work = PRIOR_TOKENS
        self._time = PRIOR_TOKENS / prior.prefill
        self._heap: list[FirstToken] = []
        self._last_at = float("-inf")
        self._seen = 0.0  # observations, decayed
        self._means = Means()
        self._side = 0  # 1 where the last were all much slower than believed, -1 where all were faster
        self._run: list[tuple[int, float, float]] = []  # those, as number, work and time
        self._certain = False  # the rate is not to be learned
        self._forgotten = 0  # what was counted up to this one is in the sums no more

    @property
    def uncertainty(self) -> float:
        """Relative standard deviation of the rate: how much faster it may be than believed."""
        if self._certain:
            return 0.0
        return PRIOR_SPREAD * math.sqrt(PRIOR_OBSERVATIONS / (PRIOR_OBSERVATIONS + self._seen))

    def believe(self, prefill: float, *, certain: bool = False) -> None:
        """The rate is so, by somebody's word, which is ignored if no rate could be so.

        It counts as the prior does, and is learned from there; unless it is `certain`: then it stays.
        """
        if not 0 < prefill < math.inf:
            return
        self.prefill = prefill
        self._certain = certain
        self._work, self._time = PRIOR_TOKENS, PRIOR_TOKENS / prefill
        self._seen = PRIOR_OBSERVATIONS
        self._forgotten = self._counts
        self._run.clear()

    def observe(self, first_token: FirstToken) -> None:
        """A first token was reported."""
        heapq.heappush(self._heap, first_token)

    def confirm(self, first_token: FirstToken, uncached: float, matched: float) -> None:
        """The answer is over: so much of its prompt was computed, so much was cached."""
        self._take_back(first_token)
        first_token.uncached, first_token.matched, first_token.confirmed = uncached, matched, True
        self._count(first_token)

    def revoke(self, first_token: FirstToken) -> None:
        """It was no answer after all, or a broken one: nothing is to be learned from it."""
        self._take_back(first_token)
        first_token.learnable = False

    def settle(self, now: float) -> bool:
        """Work out how long each prefill took, once none before it can be unreported; whether any was."""
        settled = False
        while self._heap and self._heap[0].at <= now - self._news_delay:
            first_token = heapq.heappop(self._heap)
            # News later than `news_delay`: its time is already in that of the one after it.
            first_token.learnable &= first_token.at >= self._last_at
            first_token.busy = max(0.0, first_token.at - max(first_token.placed_at, self._last_at))
            self._last_at = max(self._last_at, first_token.at)
            self.busy_seconds += first_token.busy
            first_token.busy_before = self.busy_seconds
            self._count(first_token)
            settled = True
        return settled

    def _count(self, first_token: FirstToken) -> None:
        tokens = first_token.uncached
        if first_token.busy is None or not first_token.learnable or tokens < LEAST_TOKENS:
            return
        work = self._costs.work(first_token.matched, tokens) * self._costs.slowdown(first_token.decodes)
        expected = work / self.prefill
        time = bounded(first_token.busy - REQUEST_OVERHEAD_SECONDS, expected, OUTLIER_FACTOR)
        if first_token.confirmed:
            position, weight = first_token.matched + tokens / 2, min(1.0, tokens / WHOLE_TOKENS)
            self._costs.observe_prefill(self._means, time / tokens, position, first_token.decodes, weight)
        self.observations += not first_token.learned
        first_token.learned = True
        self._counts += 1
        self._seen = DECAY * self._seen + 1
        self._work = DECAY * self._work + work
        self._time = DECAY * self._time + time
        first_token.counted = self._counts, work, time
        if not self._certain:
            self._follow(first_token.counted, time / expected)
            self.prefill = self._work / self._time

    def _take_back(self, first_token: FirstToken) -> None:
        if first_token.counted is None:
            return
        number, work, time = first_token.counted
        if first_token.counted in self._run:
            self._run.remove(first_token.counted)
        first_token.counted = None
        left = DECAY ** (self._counts - number)
        if number > self._forgotten and self._work - work * left > LEAST_TOKENS:
            self._work -= work * left
            self._time -= time * left
            if not self._certain:
                self.prefill = self._work / self._time

    def _follow(self, counted: tuple[int, float, float], ratio: float) -> None:
        """If the last ones were all much slower or all much faster than believed, believe them alone."""
        side = 1 if ratio >= RUN_FACTOR else -1 if ratio <= 1 / RUN_FACTOR else 0
        if side != self._side:
            self._side = side
            self._run.clear()
        if side:
            self._run.append(counted)
        if len(self._run) == RUN:
            self._forgotten = self._run[0][0] - 1
            self._work = sum(work * DECAY ** (self._counts - number) for number, work, _ in self._run)
            self._time = sum(time * DECAY ** (self._counts - number) for number, _, time in self._run)
            self._seen = float(RUN)
            self._run.clear()


def bounded(value: float, expected: float, factor: float) -> float:
    """`value`, if it lies within `factor` of what was expected; else the nearer end."""
    return min(max(value, expected / factor), expected * factor)
