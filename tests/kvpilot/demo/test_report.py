from __future__ import annotations

import json

import pytest

from fleet.model import Endpoint, Hardware
from kvpilot.demo.client import Outcome
from kvpilot.demo.report import PhaseFigures, figures, mean, percentile, to_json
from kvpilot.demo.workload import Session, Turn

SESSION = Session(0, 0.0, 0, (Turn(0.0, 300, 50),))
H100 = Endpoint("10.0.0.1:8000", "m", "stable", "h100", Hardware("H100-80GB", 4))
A100 = Endpoint("10.0.0.2:8000", "m", "canary", "a100", Hardware("A100-40GB", 8))


def _outcome(
    ttft: float,
    cached: int | None = 0,
    endpoint: Endpoint = H100,
    failure: str = "",
    prompt: int | None = 100,
) -> Outcome:
    return Outcome(SESSION, 0, 1.0, ttft, ttft + 1, prompt, cached, endpoint.address, failure=failure)


def _figures(*outcomes: Outcome) -> PhaseFigures:
    return figures(outcomes, [H100, A100], {H100.address: 0.5}, seconds=10.0, offered_load=0.75)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(200, 0, -1)]
    assert percentile(values, 50) == 100.0
    assert percentile(values, 99) == 198.0
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0], 50) == 1.0


def test_nothing_measured_is_none() -> None:
    assert percentile([], 99) is None
    assert mean([]) is None
    empty = _figures()
    assert (empty.requests, empty.ttft_mean_s, empty.e2e_p99_s, empty.cached_token_ratio) == (
        0,
        None,
        None,
        None,
    )
    assert "NaN" not in to_json({"steered": empty})


def test_failures_are_counted_by_reason_and_have_no_part_in_times_or_tokens() -> None:
    one = _figures(
        _outcome(0.1, 50), _outcome(9.0, 0, failure="HTTP 503"), _outcome(9.0, 0, failure="HTTP 503")
    )
    assert (one.requests, one.failed, one.failures) == (3, 2, {"HTTP 503": 2})
    assert (one.ttft_mean_s, one.cached_token_ratio) == (0.1, 0.5)


def test_the_cached_ratio_is_of_tokens_and_not_of_requests() -> None:
    one = _figures(_outcome(0.1, 100, prompt=100), _outcome(0.1, 0, prompt=300))
    assert one.cached_token_ratio == 0.25


def test_engines_that_tell_no_cached_tokens_have_no_ratio() -> None:
    assert _figures(_outcome(0.1, None), _outcome(0.2, None)).cached_token_ratio is None
    assert _figures(_outcome(0.1, None, prompt=None)).cached_token_ratio is None


def test_each_endpoint_has_its_own_figures_even_if_nobody_went_there() -> None:
    one = _figures(_outcome(0.1, 20), _outcome(0.3, 40))
    busy, idle = one.per_endpoint[H100.address], one.per_endpoint[A100.address]
    assert (busy.hardware, busy.version, busy.requests) == ("H100-80GB-TP4", "stable", 2)
    assert busy.ttft_mean_s == pytest.approx(0.2)
    assert busy.cached_token_ratio == pytest.approx(0.3)
    assert busy.prefill_busy == 0.5
    assert (idle.requests, idle.ttft_mean_s, idle.prefill_busy) == (0, None, None)


def test_json_has_every_phase_in_its_place_whatever_the_order_they_ran_in() -> None:
    one = _figures(_outcome(0.1, 20), _outcome(0.3, 40))
    told = json.loads(to_json({"steered": one, "weighted": one, "round_robin": one}))
    assert list(told) == ["round_robin", "weighted", "steered"]
    phase = told["steered"]
    wanted = {"requests", "failed", "ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "e2e_p99_s"}
    assert wanted | {"cached_token_ratio", "per_endpoint"} <= set(phase)
    assert phase["ttft_mean_s"] == 0.2
    assert phase["requests_per_s"] == 0.2
    assert phase["per_endpoint"][A100.address]["prefill_busy"] is None
    assert phase["per_endpoint"][H100.address]["prefill_busy"] == 0.5
