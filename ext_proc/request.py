"""What the picker needs to know of one request, whatever protocol it came by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request's body says. `text` is the canonical prompt, as the engine will see it."""

    model: str
    text: bytes
    streamed: bool
    output_tokens: int | None = None  # the client's limit
    session: str = ""
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """One request to place. Token counts are estimates where no tokenizer is configured."""

    candidates: Sequence[str]  # addresses, all in the cluster that the route chose
    prompt_tokens: float
    blocks: Sequence[int]  # chained hashes of the prompt's whole blocks
    tokens_per_block: float
    expected_output_tokens: int = 256
    session: str = ""
    streamed: bool = True  # the first token will be seen on the wire

    def tokens_of(self, blocks: int) -> float:
        """Tokens of so many matched blocks; the prompt's last one is always computed, to answer at all."""
        return min(blocks * self.tokens_per_block, max(0.0, self.prompt_tokens - 1))
