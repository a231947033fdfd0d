"""How far the store's clock is ahead of this process's own, from questions and answers.

Replicas exchange times on the store's clock, so it does not matter what the machines' clocks say. An answer
that took less time to come says more exactly when it was given.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SAMPLES = 10
"""Answers remembered; one a second, so that the clocks' drift (some 50 us a second) stays out of it."""


@dataclass(frozen=True, slots=True)
class _Sample:
    offset: float
    error: float  # at most, seconds


class StoreClock:
    """`offset`: seconds that the store's clock is ahead; None until it was asked."""

    def __init__(self) -> None:
        self.offset: float | None = None
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def answered(self, asked_at: float, heard_at: float, said: float) -> None:
        """Asked and heard at these times of this process, the store said what its own clock shows."""
        error = max(0.0, heard_at - asked_at) / 2
        sample = _Sample(said - (asked_at + heard_at) / 2, error)
        # Two that exclude each other: the clock was set, or another server answers since a failover.
        if any(abs(sample.offset - s.offset) > sample.error + s.error + 0.01 for s in self._samples):
            self._samples.clear()
        self._samples.append(sample)
        self.offset = min(self._samples, key=lambda s: s.error).offset
