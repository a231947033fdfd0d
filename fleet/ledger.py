"""What one endpoint still owes: prompts placed there and not yet prefilled, and answers being decoded.

Engines prefill in order of arrival, one prompt after the other, so each prompt ends a service time after
the one before it or after its own arrival, whichever is later. News of first tokens comes late (Envoy logs
mid-stream every `log_interval_seconds`), so between news the ends are reckoned by the clock, and every first
token that is heard of puts the reckoning right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.cost_model import CostModel

REQUEST_OVERHEAD_SECONDS = 0.008
"""Fixed cost of a prefill besides its tokens: scheduling, tokenizing, one iteration of the engine."""

UNCERTAINTY = 0.3
"""Standard deviation of when the queue is empty, as a share of the work since the last news. Prefills
themselves vary by about 0.1; the rest is a price on queues, which the benchmark's engines both repay."""

SLOWEST = 8.0
"""An endpoint that is overdue is believed to be at most so much slower than its rate says."""


@dataclass(slots=True)
class Prefill:
    """A prompt placed and not yet seen to answer. `work` is in tokens, as `CostModel.work` weighs them."""

    work: float
    placed_at: float
    observable: bool  # its first token will be reported: the answer is streamed


@dataclass(slots=True)
class Ledger:
    """One endpoint's account. Times are seconds on the caller's clock."""

    news_delay: float  # how long after a first token it is heard of, at most
    costs: CostModel
    prefills: dict[str, Prefill] = field(default_factory=dict)
    decodes: set[str] = field(default_factory=set)
    owed: float = 0.0  # work of all prefills together, tokens
    kv_tokens: float = 0.0  # of KV cache that requests in flight add to what was there, once they are done
    unobservable: int = 0  # prefills whose first token nobody will report
    _began_at: float = 0.0  # nothing in the queue was computed before
    _head_ends: float = 0.0  # when the first of the queue is reckoned to end,
    _free_at: float = 0.0  # and the last, at this rate:
    _rate: float = 0.0  # 0 where something changed since
    _last_rate: float = 0.0
    _kv: dict[str, float] = field(default_factory=dict)  # that each of them adds

    @property
    def in_flight(self) -> int:
        """Requests placed and not over."""
        return len(self.prefills) + len(self.decodes)

    def place(self, id_: str, work: float, now: float, *, observable: bool, kv_tokens: float = 0.0) -> None:
        """A request is on its way with so many tokens of `work` to compute, to take `kv_tokens` of cache.

        `now` may lie before the last placement: what other replicas placed is heard of later.
        """
        last = next(reversed(self.prefills.values()), None)
        self.prefills[id_] = Prefill(work, now, observable)
        self._kv[id_] = kv_tokens
        self.kv_tokens += kv_tokens
        self.owed += work
        self.unobservable += not observable
        if last is None or not self._rate:
            self._rate = 0.0
        elif last.placed_at <= now:
            self._free_at = max(self._free_at, now) + self.service_seconds(work, self._rate)
        else:
            self.prefills = dict(sorted(self.prefills.items(), key=lambda item: item[1].placed_at))
            self._rate = 0.0

    def first_token(self, id_: str, at: float) -> None:
        """The request began to answer at `at`; so has, in order of arrival, every one before it."""
        while id_ in self.prefills:
            self._begin_decoding(next(iter(self.prefills)), at)

    def release(self, id_: str, at: float) -> None:
        """The request is over, however it ended: it owes nothing any more.

        If it was next to be computed and should have been by `at`, those behind it are reckoned from when it
        should have been: nothing was heard, which is no reason to believe that they waited for it till now.
        """
        self.decodes.discard(id_)
        self.kv_tokens -= self._kv.pop(id_, 0.0)
        if not self._kv:
            self.kv_tokens = 0.0  # no rounding left behind
        if id_ in self.prefills:
            if next(iter(self.prefills)) == id_:
                if not self._rate and self._last_rate:
                    self._reckon(self._last_rate)
                end = min(at, self._head_ends) if self._rate else at
                self._began_at = max(self._began_at, end)
            self._take(id_)
        self._rate = 0.0

    def service_seconds(self, work: float, rate: float) -> float:
        """Time to prefill `work` tokens at `rate` tokens/s beside the decodes running now."""
        return REQUEST_OVERHEAD_SECONDS + work * self.costs.slowdown(len(self.decodes)) / rate

    def wait_seconds(self, now: float, rate: float) -> float:
        """Time until a request placed now is expected to begin its own prefill.

        What is left is uncertain, so this is the mean of what is left if it is: E max(0, X) of a normal X,
        by (x + sqrt(x^2 + 0.64 s^2)) / 2, which is exact at x = 0 and far from it.
        """
        self._bring_up(now, rate)
        if not self.prefills:
            return 0.0
        left = self._left(now)
        return 0.5 * (left + math.sqrt(left * left + self._variance()))

    def queue_seconds(self, now: float, rate: float) -> float:
        """Time until all that is placed should be computed, by the clock alone: 0 once that is past."""
        self._bring_up(now, rate)
        return max(0.0, self._free_at - now) if self.prefills else 0.0

    def outlook(self, now: float, rate: float) -> tuple[float, float]:
        """When all that is placed should be computed, and the variance in `wait_seconds`'s formula.

        As long as nothing changes and nothing is late, x there is the first less `now`. (-inf, 0) where
        nothing is placed.
        """
        self._bring_up(now, rate)
        return (self._free_at, self._variance()) if self.prefills else (-math.inf, 0.0)

    def _bring_up(self, now: float, rate: float) -> None:
        """Reckon for this rate, with what is over by `now`."""
        if self.unobservable:
            self._settle(now, rate)
        if rate != self._rate:
            self._reckon(rate)

    def _left(self, now: float) -> float:
        """Seconds until the queue is empty, or less than nothing: since when it should be.

        Where the head should have been heard of by now, it is late by so much at least. How late is unknown;
        half as much again is a guess, and those behind it will be as slow as it was.
        """
        left = self._free_at - now
        late = now - self.news_delay - self._head_ends
        if late <= 0:
            return left
        expected = self._head_ends - self._head_began()
        behind = self._free_at - self._head_ends
        return max(left + late, behind * min(SLOWEST, 1 + late / expected) + 0.5 * late)

    def _variance(self) -> float:
        spread = UNCERTAINTY * (self._free_at - self._head_began())
        return 0.64 * spread * spread

    def _settle(self, now: float, rate: float) -> None:
        """Count as decoding what nobody will report: answers not streamed, once their prefill is over."""
        end = self._began_at
        while self.prefills:
            id_, head = next(iter(self.prefills.items()))
            end = max(end, head.placed_at) + self.service_seconds(head.work, rate)
            if head.observable or end > now:
                return
            self._begin_decoding(id_, end)

    def _reckon(self, rate: float) -> None:
        """Walk the queue: when its first and its last will have been computed, at this rate."""
        self._rate = self._last_rate = rate
        end = self._began_at
        per_token = self.costs.slowdown(len(self.decodes)) / rate
        self._head_ends = math.inf
        for prefill in self.prefills.values():
            end = max(end, prefill.placed_at) + REQUEST_OVERHEAD_SECONDS + prefill.work * per_token
            self._head_ends = min(self._head_ends, end)
        self._free_at = end

    def _head_began(self) -> float:
        return max(self._began_at, next(iter(self.prefills.values())).placed_at)

    def _begin_decoding(self, id_: str, at: float) -> None:
        self._take(id_)
        self.decodes.add(id_)
        self._began_at = max(self._began_at, at)
        self._rate = 0.0

    def _take(self, id_: str) -> None:
        prefill = self.prefills.pop(id_)
        self.owed = max(0.0, self.owed - prefill.work) if self.prefills else 0.0  # no rounding left behind
        self.unobservable -= not prefill.observable
