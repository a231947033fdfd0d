"""What the picker saw of one endpoint lately, for people to look at; no decision reads it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from fleet.quantiles import nearest_rank

RECENT = 200
"""Requests that the figures cover: enough for a p95, recent enough to show a change."""


@dataclass(slots=True)
class RecentTraffic:
    """Prompt tokens, matched tokens and TTFT (seconds) of the last requests."""

    prompts: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    ttfts: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def answered(self, prompt_tokens: float, matched_tokens: float) -> None:
        """A request ended well, of whose prompt so many tokens were found in the cache."""
        self.prompts.append((prompt_tokens, matched_tokens))

    def first_token(self, ttft: float) -> None:
        """A first token came after so many seconds."""
        self.ttfts.append(ttft)

    def match_ratio(self) -> float | None:
        """Matched share of all prompt tokens, 0..1."""
        total = sum(prompt for prompt, _ in self.prompts)
        return sum(matched for _, matched in self.prompts) / total if total else None

    def ttft_quantile(self, q: float) -> float | None:
        """The TTFT that a share `q` of the requests stayed at or below, in seconds."""
        return nearest_rank(sorted(self.ttfts), q) if self.ttfts else None
