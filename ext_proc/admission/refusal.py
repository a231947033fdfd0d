"""What a request gets that is turned away."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

Reason = Literal["saturated", "displaced", "objective", "budget"]
"""Its priority is shed; or one that was held made room for a more important one; or its objective cannot be
met; or its tenant has used up its tokens."""

TOO_MANY_REQUESTS = 429

RESOURCE_EXHAUSTED = 8
"""gRPC's status for the same."""

_MESSAGES: dict[Reason, str] = {
    "saturated": "The model is overloaded and requests of this priority are turned away for now.",
    "displaced": "The model is overloaded and more important requests took this one's place.",
    "objective": "No endpoint can answer within the requested time to first token.",
    "budget": "The tenant has used up its tokens for now.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in place of the model's. `model` and `level` are for counters; both are configured names."""

    reason: Reason
    retry_after: int  # seconds, at least 1
    model: str
    level: int  # the lowest priority of the request's level
    tenant: str = ""
    status: int = TOO_MANY_REQUESTS

    @property
    def message(self) -> str:
        """For people; says nothing of the request."""
        return f"{_MESSAGES[self.reason]} Try again in {self.retry_after} s."

    def body(self) -> bytes:
        """An error as OpenAI's and Anthropic's clients read it."""
        error = {
            "message": self.message,
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded" if self.reason == "budget" else "overloaded",
        }
        return json.dumps({"type": "error", "error": error}).encode()
