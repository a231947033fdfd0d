"""A request that was placed and is not over: where it is, and what its end will be held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext_proc.endpoint import EndpointState
    from ext_proc.request import RoutingRequest
    from fleet.rates import FirstToken


@dataclass(slots=True)
class Placement:
    """A request under way. Times are seconds on the picker's clock, tokens of the prompt."""

    request: RoutingRequest
    state: EndpointState  # of the endpoint it is at
    endpoints: tuple[str, ...]  # that one, and where Envoy turns next
    placed_at: float
    heard_at: float  # when the log last spoke of it
    matched_tokens: float
    uncached_tokens: float
    learnable: bool  # its first token will tell of its own prefill alone
    decodes: int  # running beside it when it was placed
    inserted: list[int]  # blocks believed to be there only because of it
    first_token: FirstToken | None = None

    def cached(self, prompt_tokens: int | None, cached_tokens: int | None) -> float | None:
        """The engine's count of cached tokens, in our own measure of the prompt; None where it told none."""
        if cached_tokens is None or not prompt_tokens:
            return None
        return min(1.0, cached_tokens / prompt_tokens) * self.request.prompt_tokens
