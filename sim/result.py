"""What became of a simulated workload: every job's outcome, and the figures that sum them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.quantiles import nearest_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

Summary = dict[str, float | None]
"""Figures by name; None where no request was served, so that none is measured."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One job. `endpoint` is an index into the fleet; None for a failure, whose other figures mean nothing.

    Times are seconds from its arrival; `tpot` is per output token after the first, None with no such token.
    """

    job: int
    endpoint: int | None
    ttft: float = 0.0
    e2e: float = 0.0
    tpot: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """All outcomes by job id, and each endpoint's share of time spent on prefill, 0..1."""

    outcomes: tuple[Outcome, ...]
    busy: tuple[float, ...]  # from the first arrival to the last end

    def summary(self) -> Summary:
        """Times (seconds) and hits of the requests that were served, and how many were `rejected`."""
        served = [o for o in self.outcomes if o.endpoint is not None]
        ttft = sorted(o.ttft for o in served)
        e2e = sorted(o.e2e for o in served)
        prompt_tokens = sum(o.prompt_tokens for o in served)
        return {
            "ttft_mean_s": _mean(ttft),
            "ttft_p50_s": _quantile(ttft, 0.5),
            "ttft_p90_s": _quantile(ttft, 0.9),
            "ttft_p99_s": _quantile(ttft, 0.99),
            "e2e_mean_s": _mean(e2e),
            "e2e_p99_s": _quantile(e2e, 0.99),
            "tpot_mean_s": _mean([o.tpot for o in served if o.tpot is not None]),
            "token_hit_ratio": sum(o.cached_tokens for o in served) / prompt_tokens
            if prompt_tokens
            else None,
            "rejected": len(self.outcomes) - len(served),
        }


def average(summaries: Sequence[Summary]) -> Summary:
    """Each figure's mean over runs that differ in their seed only, where it was measured."""
    return {
        name: _mean([value for summary in summaries if (value := summary[name]) is not None])
        for name in summaries[0]
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    return nearest_rank(ordered, q) if ordered else None
