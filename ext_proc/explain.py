"""Where a request would go now, and why, as plain data: the picker's own reckoning, with nothing booked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.steer import Steered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.price import Candidate
    from ext_proc.steer import Steerer

Explanation = dict[str, object]
"""`outcome` in a word, `why`, and `candidates`, best first; seconds and tokens. JSON can carry it."""


def explain(
    steerer: Steerer, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float
) -> Explanation:
    """Of one request, as `Steerer.steer` takes it."""
    considered = steerer.consider(cluster, path, headers, body, now)
    if isinstance(considered, Steered):
        return {"cluster": cluster, "outcome": considered.outcome, "why": "", "candidates": []}
    candidates = [_row(candidate) for candidate in considered.candidates]
    return {"cluster": cluster, "outcome": "steered", "why": considered.why, "candidates": candidates}


def _row(candidate: Candidate) -> dict[str, object]:
    seen = candidate.prediction
    return {
        "endpoint": seen.address,
        "matched_tokens": round(seen.matched_tokens),
        "uncached_tokens": round(seen.uncached_tokens),
        "owed_tokens": round(seen.owed),
        "tokens_per_second": round(seen.rate),
        "wait": round(seen.prefill_wait, 4),
        "prefill": round(seen.prefill, 4),
        "room": round(seen.room_wait, 4),
        "detour": round(seen.detour, 4),
        "ttft": round(seen.ttft, 4),
        "later": round(candidate.later, 4),
        "behind": round(candidate.behind, 4),
        "streams": round(candidate.streams, 4),
        "memory": round(candidate.memory, 4),
        "cost": round(candidate.cost, 4),
    }
