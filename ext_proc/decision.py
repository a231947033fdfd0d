"""What the picker answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ext_proc.predict import Prediction


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request should go. `id` ties later news to it and cannot be guessed."""

    id: str
    endpoints: tuple[str, ...]  # distinct, best first
    predicted_ttft: float  # seconds
    matched_tokens: float
    reasons: tuple[Prediction, ...]  # every candidate, best first
