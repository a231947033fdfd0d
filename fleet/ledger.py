"""What one endpoint still owes: prompts placed there and not yet prefilled, and answers being decoded.

Engines prefill in order of arrival, so the work ahead of a new request is the sum of the prompts before
it, less what has been computed since the first of them began. News of first tokens arrives late (Envoy
logs mid-stream every `log_interval_seconds`), so progress is credited by the clock, but never further
than what would have been heard of by now.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REQUEST_OVERHEAD_SECONDS = 0.008
"""Fixed cost of a prefill besides its tokens: scheduling, tokenizing, one iteration of the engine."""

SLOWDOWN_PER_DECODE = 0.012
"""Each running decode takes about this share from prefill: one token of every batch step per stream."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt placed and not yet seen to answer. `tokens` are those without a match."""

    tokens: float
    placed_at: float
    observable: bool  # its first token will be reported: the answer is streamed


@dataclass(slots=True)
class Ledger:
    """One endpoint's account. Times are seconds on the caller's clock."""

    news_delay: float  # how long after a first token it is heard of, at most
    prefills: dict[str, Prefill] = field(default_factory=dict)
    decodes: set[str] = field(default_factory=set)
    head_since: float = 0.0  # when the first prefill in the queue is believed to have begun
    tokens: float = 0.0  # of all prefills together

    @property
    def in_flight(self) -> int:
        """Requests placed and not over."""
        return len(self.prefills) + len(self.decodes)

    def place(self, id_: str, tokens: float, now: float, *, observable: bool) -> None:
        """A request is on its way with `tokens` to compute."""
        if not self.prefills:
            self.head_since = max(self.head_since, now)
        self.prefills[id_] = Prefill(tokens, now, observable)
        self.tokens += tokens

    def first_token(self, id_: str, at: float) -> None:
        """The request began to answer at `at`; so has, in order of arrival, every one before it."""
        if id_ not in self.prefills:
            return
        for earlier in list(self.prefills):
            self._take(earlier)
            self.decodes.add(earlier)
            if earlier == id_:
                break
        self._next_head(at)

    def release(self, id_: str, at: float) -> None:
        """The request is over, however it ended: it owes nothing any more."""
        self.decodes.discard(id_)
        if id_ in self.prefills:
            was_head = next(iter(self.prefills)) == id_
            self._take(id_)
            if was_head:
                self._next_head(at)

    def settle(self, now: float, rate: float) -> None:
        """Count as decoding what nobody will report: answers not streamed, once their time is over."""
        while self.prefills:
            id_, head = next(iter(self.prefills.items()))
            ends = self.head_since + self.service_seconds(head.tokens, rate)
            if head.observable or ends > now:
                return
            self._take(id_)
            self.decodes.add(id_)
            self._next_head(ends)

    def service_seconds(self, tokens: float, rate: float) -> float:
        """Time to prefill `tokens` at `rate` tokens/s beside the decodes running now."""
        return REQUEST_OVERHEAD_SECONDS + tokens * (1 + SLOWDOWN_PER_DECODE * len(self.decodes)) / rate

    def wait_seconds(self, now: float, rate: float) -> float:
        """Time until a request placed now would begin its own prefill."""
        self.settle(now, rate)
        if not self.prefills:
            return 0.0
        overheads = (len(self.prefills) - 1) * REQUEST_OVERHEAD_SECONDS
        work = overheads + self.service_seconds(self.tokens, rate)
        return max(0.0, work - self._credit(now, rate))

    def _credit(self, now: float, rate: float) -> float:
        """Seconds of work done since the head began, as far as silence allows to believe."""
        head = next(iter(self.prefills.values()))
        elapsed = max(0.0, now - self.head_since)
        return min(elapsed, self.service_seconds(head.tokens, rate) + self.news_delay)

    def _take(self, id_: str) -> None:
        prefill = self.prefills.pop(id_)
        self.tokens = self.tokens - prefill.tokens if self.prefills else 0.0  # no rounding left behind

    def _next_head(self, at: float) -> None:
        """The first of the queue began at `at`, or when it was placed if that was later."""
        placed = next(iter(self.prefills.values())).placed_at if self.prefills else at
        self.head_since = max(self.head_since, at, placed)
