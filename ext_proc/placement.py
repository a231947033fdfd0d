"""A request that was placed and is not over: where it is, and what its end will be held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc.events import Began
from ext_proc.outcome import Outcome

if TYPE_CHECKING:
    from ext_proc.endpoint import EndpointState
    from ext_proc.events import Ended, Placed
    from ext_proc.request import RoutingRequest
    from fleet.rates import FirstToken


@dataclass(slots=True)
class Placement:
    """A request under way. Times are seconds on the picker's clock, tokens of the prompt."""

    request: RoutingRequest
    state: EndpointState  # of the endpoint it is at
    endpoints: tuple[str, ...]  # that one, and where Envoy turns next
    placed_at: float
    sent_at: float  # to the endpoint that it is at: later than placed where it was tried elsewhere before
    heard_at: float  # when the log last spoke of it
    believed_tokens: float  # that the index believed to be there,
    matched_tokens: float  # that were counted on,
    uncached_tokens: float  # and that were not
    learnable: bool  # its first token will tell of its own prefill alone
    decodes: int  # running beside it when it was placed
    placed: Placed  # as it was told
    told_at: float  # when the other replicas were last told where it is
    inserted: list[int]  # blocks believed to be there only because of it
    replica: str = ""  # who placed it
    predicted_ttft: float = 0.0  # seconds, of the decision
    picked: str = ""  # the endpoint that was decided; '' where another replica did
    attempts: int = 1
    first_token: FirstToken | None = None

    def outcome(self, ended: Ended) -> Outcome:
        """What became of it, beside what was predicted."""
        first = self.first_token
        return Outcome(
            id=ended.id,
            picked=self.picked,
            served=ended.endpoint,
            attempts=self.attempts,
            failed=ended.failed,
            answered=ended.answered,
            seconds=ended.at - self.placed_at,
            predicted_ttft=self.predicted_ttft,
            ttft=None if first is None or self.sent_at > self.placed_at else first.at - self.placed_at,
            prompt_tokens=self.request.prompt_tokens,
            matched_tokens=self.matched_tokens,
            cached_tokens=self.cached(ended.prompt_tokens, ended.cached_tokens),
        )

    def as_told(self) -> list[Placed | Began]:
        """What another replica has to hear to know of it what is known here."""
        told: list[Placed | Began] = [
            replace(
                self.placed,
                at=self.sent_at,
                endpoints=self.endpoints,
                believed_tokens=self.believed_tokens,
                matched_tokens=self.matched_tokens,
                uncached_tokens=self.uncached_tokens,
                again=True,
            )
        ]
        if self.first_token is not None:
            told.append(Began(self.placed.id, self.first_token.at))
        return told

    def cached(self, prompt_tokens: int | None, cached_tokens: int | None) -> float | None:
        """The engine's count of cached tokens, in our own measure of the prompt; None where it told none."""
        if cached_tokens is None or not prompt_tokens:
            return None
        return min(1.0, cached_tokens / prompt_tokens) * self.request.prompt_tokens
