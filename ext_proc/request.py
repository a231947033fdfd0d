"""What the picker needs to know of one request, whatever protocol it came by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

WorkloadClass = Literal["interactive", "batch"]
"""Somebody waits for the first token, or only for the whole. Long prompts need no class: they are seen."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request says. `text` is the canonical prompt, as the engine will see it.

    Where the client tokenized it itself, `tokens` is how many there are, and `text` has four bytes of each.
    """

    model: str  # from the body, or from the path; '' where neither names one
    text: bytes
    streamed: bool
    output_tokens: int | None = None  # the client's limit; 0 where there is nothing to decode
    session: str = ""
    cache_salt: str = ""
    lora: str = ""  # the adapter that is asked for beside the model
    tokens: int | None = None  # exactly; None where bytes must tell
    cacheable: bool = True  # engines keep its prefix for later ones
    read_bytes: int | None = None  # of the body as it came that `text` is from; None for all that came
    whole_bytes: int = 0  # of the body, where the protocol itself says; 0 where it does not


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """One request to place. Token counts are estimates where no tokenizer is configured."""

    candidates: Sequence[str]  # addresses, all in the cluster that the route chose
    prompt_tokens: float
    blocks: Sequence[int]  # chained hashes of the prompt's whole blocks
    tokens_per_block: float
    output_limit: int | None = None  # tokens that the client asked for at most
    session: str = ""
    streamed: bool = True  # the first token will be seen on the wire
    model: str = ""  # as the client names it, which may be a LoRA's name; '' where nobody knows
    lora: str = ""  # the adapter it needs, '' for none
    workload_class: WorkloadClass = "interactive"
    zone: str = ""  # of the Envoy that asks; '' where nobody knows
    grpc: bool = False  # it goes to the endpoints' gRPC addresses
    tenant: str = ""  # as a trusted source names it; '' where none does
    priority: int = 0  # higher is more important
    deadline: float = math.inf  # when the first token is wanted, on this picker's clock

    @property
    def kind(self) -> tuple[str, ...]:
        """What answers of like length have in common."""
        return (self.model, self.workload_class)

    def tokens_of(self, blocks: int) -> float:
        """Tokens of so many matched blocks; the prompt's last one is always computed, to answer at all."""
        return min(blocks * self.tokens_per_block, max(0.0, self.prompt_tokens - 1))
