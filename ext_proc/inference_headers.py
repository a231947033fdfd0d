"""The request headers of the endpoint-picker protocol, under their present and their older names.

They are inputs and no commands: which of them are believed, `trust` says, by their present names.
"""

from __future__ import annotations

ALIASES = {
    "x-gateway-inference-objective": "x-llm-d-inference-objective",
    "x-gateway-inference-fairness-id": "x-llm-d-inference-fairness-id",
    "x-gateway-model-name-rewrite": "x-llm-d-model-name-rewrite",
    "x-slo-ttft-ms": "x-llm-d-slo-ttft-ms",
    "x-slo-tpot-ms": "x-llm-d-slo-tpot-ms",
}
"""Older names, and what they are called now."""


def add_present_names(headers: dict[str, str]) -> None:
    """What comes under an older name counts under the present one, too, unless that is there as well."""
    for old, new in ALIASES.items():
        if old in headers:
            headers.setdefault(new, headers[old])
