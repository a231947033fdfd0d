"""What became of a request, beside what was predicted of it: facts for whoever counts them."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """The end of a request that this picker placed. Times are seconds, tokens those of the prompt."""

    id: str  # of the pick
    picked: str  # the endpoint that was decided
    served: str  # the one that answered, or failed to, last; '' where nobody did
    attempts: int
    failed: bool  # and it was the endpoint's doing
    answered: bool
    seconds: float  # from the decision to the end
    predicted_ttft: float
    ttft: float | None  # from the decision; None where it was not seen, or came from another endpoint
    prompt_tokens: float
    matched_tokens: float  # that were counted on where it was served
    cached_tokens: float | None  # that the engine says it had; None where it did not say

    @property
    def fallback(self) -> bool:
        """Envoy went elsewhere at once: it did not obey the pick. A retry is no fallback."""
        return self.attempts <= 1 and self.served not in ("", self.picked)
