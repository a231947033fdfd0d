"""From outcomes to figures: what `kvpilot up --demo --json` prints.

Only requests that were answered whole count in times and tokens. A figure that nothing was measured for is
None (`null`), never NaN.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from fleet.settings import Steering

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fleet.model import Endpoint
    from kvpilot.demo.client import Outcome

PHASES: tuple[Steering, ...] = get_args(Steering)
"""Every phase, in the order in which results are told, whatever the order they ran in."""

_DIGITS = 6  # microseconds and millionths: finer than anything measured here


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """One endpoint in one phase. `prefill_busy`: share of the phase its prefill ran, None if not emulated."""

    hardware: str
    version: str
    requests: int
    cached_token_ratio: float | None
    ttft_mean_s: float | None
    prefill_busy: float | None


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """One phase as the client saw it. Times in seconds; `cached_token_ratio` is of prompt tokens, 0..1.

    `offered_load` is the share of round robin's capacity that the requests really sent asked for.
    """

    requests: int
    failed: int
    ttft_mean_s: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    e2e_p99_s: float | None
    cached_token_ratio: float | None
    requests_per_s: float
    offered_load: float
    failures: Mapping[str, int] = field(default_factory=dict)
    per_endpoint: Mapping[str, EndpointFigures] = field(default_factory=dict)


def figures(
    outcomes: Sequence[Outcome],
    endpoints: Iterable[Endpoint],
    busy: Mapping[str, float],
    *,
    seconds: float,
    offered_load: float,
) -> PhaseFigures:
    """The figures of one phase of `seconds`; `busy` is each endpoint's prefill share where it is known."""
    whole = [outcome for outcome in outcomes if not outcome.failure]
    ttft = _times(outcome.ttft for outcome in whole)
    return PhaseFigures(
        requests=len(outcomes),
        failed=len(outcomes) - len(whole),
        ttft_mean_s=mean(ttft),
        ttft_p50_s=percentile(ttft, 50),
        ttft_p99_s=percentile(ttft, 99),
        e2e_p99_s=percentile(_times(outcome.e2e for outcome in whole), 99),
        cached_token_ratio=_cached_ratio(whole),
        requests_per_s=len(outcomes) / seconds,
        offered_load=offered_load,
        failures=dict(Counter(outcome.failure for outcome in outcomes if outcome.failure).most_common()),
        per_endpoint={
            endpoint.address: _endpoint_figures(endpoint, whole, busy.get(endpoint.address))
            for endpoint in endpoints
        },
    )


def _endpoint_figures(endpoint: Endpoint, whole: Sequence[Outcome], busy: float | None) -> EndpointFigures:
    served = [outcome for outcome in whole if outcome.endpoint == endpoint.address]
    return EndpointFigures(
        hardware=str(endpoint.hardware),
        version=endpoint.version,
        requests=len(served),
        cached_token_ratio=_cached_ratio(served),
        ttft_mean_s=mean(_times(outcome.ttft for outcome in served)),
        prefill_busy=busy,
    )


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _times(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _cached_ratio(outcomes: Iterable[Outcome]) -> float | None:
    told = [o for o in outcomes if o.prompt_tokens is not None]
    prompt = sum(o.prompt_tokens or 0 for o in told)
    if not prompt or all(o.cached_tokens is None for o in told):
        return None  # engines that never tell are not engines that never hit
    return sum(o.cached_tokens or 0 for o in told) / prompt


def to_json(results: Mapping[Steering, PhaseFigures]) -> str:
    """One JSON object, a key for each phase in the order of PHASES."""
    told = {phase: _rounded(asdict(results[phase])) for phase in PHASES if phase in results}
    return json.dumps(told, allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
