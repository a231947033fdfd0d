"""How long answers are: expected from what the model's answers were like, and the client's limit."""

from __future__ import annotations

from dataclasses import dataclass, field

SHARE = 0.02
"""What one answer counts for: a memory of about 50."""

KINDS_MAX = 1000
"""Kinds of request remembered: model names come from clients."""


@dataclass(slots=True)
class OutputHistory:
    """Mean tokens of answers by kind of request, such as model and workload class."""

    assumed: float  # tokens, of a kind that was never answered
    _means: dict[tuple[str, ...], float] = field(default_factory=dict)

    def expected(self, kind: tuple[str, ...], limit: int | None) -> float:
        """Tokens of the next answer of that kind: at most what the client allows."""
        mean = self._means.get(kind, self.assumed)
        return mean if limit is None else min(mean, limit)

    def observe(self, kind: tuple[str, ...], tokens: int) -> None:
        """An answer of that kind had so many tokens."""
        mean = self._means.get(kind)
        if mean is not None:
            self._means[kind] = mean + SHARE * (tokens - mean)
        elif len(self._means) < KINDS_MAX:
            self._means[kind] = float(tokens)
