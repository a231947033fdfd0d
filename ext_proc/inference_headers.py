"""The request headers of the endpoint-picker protocol, under their present and their older names.

They are inputs and no commands: who may be believed is for the settings of trust to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OBJECTIVE = "x-llm-d-inference-objective"
FAIRNESS_ID = "x-llm-d-inference-fairness-id"
MODEL_REWRITE = "x-llm-d-model-name-rewrite"
SLO_TTFT_MS = "x-llm-d-slo-ttft-ms"
SLO_TPOT_MS = "x-llm-d-slo-tpot-ms"

ALIASES = {
    "x-gateway-inference-objective": OBJECTIVE,
    "x-gateway-inference-fairness-id": FAIRNESS_ID,
    "x-gateway-model-name-rewrite": MODEL_REWRITE,
    "x-slo-ttft-ms": SLO_TTFT_MS,
    "x-slo-tpot-ms": SLO_TPOT_MS,
}
"""Older names, and what they are called now."""

LONGEST_MS = 86_400_000
"""A day: no objective is longer."""


@dataclass(frozen=True, slots=True)
class InferenceHeaders:
    """What a request asks of an endpoint picker; '' and None where it says nothing, or nothing sensible."""

    objective: str = ""  # the name of an InferenceObjective, which gives a priority
    fairness_id: str = ""  # whom it is for: a tenant
    model_rewrite: str = ""  # the model that it is meant for, whatever the body names
    slo_ttft: float | None = None  # seconds
    slo_tpot: float | None = None  # seconds


def add_present_names(headers: dict[str, str]) -> None:
    """What comes under an older name counts under the present one, too, unless that is there as well."""
    for old, new in ALIASES.items():
        if old in headers:
            headers.setdefault(new, headers[old])


def read(headers: Mapping[str, str]) -> InferenceHeaders:
    """What `headers` under present names ask. Never raises."""
    return InferenceHeaders(
        headers.get(OBJECTIVE, ""),
        headers.get(FAIRNESS_ID, ""),
        headers.get(MODEL_REWRITE, ""),
        _seconds(headers.get(SLO_TTFT_MS, "")),
        _seconds(headers.get(SLO_TPOT_MS, "")),
    )


def _seconds(milliseconds: str) -> float | None:
    try:
        value = float(milliseconds)
    except ValueError:
        return None
    return value / 1e3 if math.isfinite(value) and 0 < value <= LONGEST_MS else None
