"""What the picker answers, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext_proc.events import Placed
    from ext_proc.price import Candidate


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request should go. `id` ties later news to it and cannot be guessed."""

    id: str
    endpoints: tuple[str, ...]  # distinct, best first
    predicted_ttft: float  # seconds
    matched_tokens: float
    reasons: tuple[Candidate, ...]  # every candidate, best first
    why: str  # what the first of them has over the others
    placed: Placed  # for the other replicas
    dialled: tuple[str, ...] = ()  # where Envoy finds the endpoints, where that is not at their own addresses

    @property
    def destinations(self) -> tuple[str, ...]:
        """What Envoy is told: an address per endpoint, in the same order."""
        return self.dialled or self.endpoints

    def explain(self) -> str:
        """The decision as a table for people, a line per candidate; no prompt text, no hashes."""
        lines = [f"{self.endpoints[0]}: {self.why}", _HEADINGS]
        for found in self.reasons:
            seen = found.prediction
            lines.append(
                f"{seen.address:24}{seen.matched_tokens:9.0f}{seen.uncached_tokens:9.0f}{seen.owed:9.0f}{seen.rate:9.0f}"
                f"{seen.prefill_wait:9.3f}{seen.prefill:9.3f}{seen.room_wait:9.3f}{seen.detour:9.3f}"
                f"{seen.ttft:9.3f}{found.later:9.3f}{found.behind:9.3f}{found.streams:9.3f}{found.memory:9.3f}"
                f"{found.cost:9.3f}"
            )
        return "\n".join(lines)


_HEADINGS = f"{'endpoint':24}" + "".join(
    f"{heading:>9}"
    for heading in (
        "matched",
        "uncached",
        "owed",
        "tokens/s",
        "wait",
        "prefill",
        "room",
        "detour",
        "TTFT",
        "later",
        "behind",
        "streams",
        "memory",
        "cost",
    )
)
