"""Quantiles of measured times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def nearest_rank(ordered: Sequence[float], q: float) -> float:
    """The least of `ordered` (ascending, not empty) that a share `q` of them, 0..1, does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
