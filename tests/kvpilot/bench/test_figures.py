from __future__ import annotations

import pytest

from kvpilot.bench.figures import Round, Saturated, Steady, percentile, summary


def a_round(
    server_us: float,
    echo_us: float = 50,
    picked: tuple[float, ...] = (2.0,),
    plain: tuple[float, ...] = (1.5,),
) -> Round:
    def slice_of(us: float) -> Saturated:
        return Saturated(answered=1000, seconds=0.5, server_cpu=us / 1000, envoy_cpu=0.2)

    return Round(Steady(picked, plain), slice_of(server_us), slice_of(echo_us))


def test_interpolates_percentiles() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([0, 10], 95) == pytest.approx(9.5)
    assert percentile([7], 99) == 7
    assert percentile([], 50) == 0


def test_gives_the_median_of_the_rounds_with_their_extremes() -> None:
    figures = summary([a_round(100), a_round(900), a_round(120)])
    assert figures["picker_cpu_us_per_request"] == 120
    assert figures["spread"]["picker_cpu_us_per_request"] == [100, 900]
    assert figures["rps"] == 2000
    assert figures["envoy_cpu_us_per_request"] == 200


def test_compares_with_the_echo_of_the_same_round() -> None:
    figures = summary([a_round(100, echo_us=50), a_round(300, echo_us=100), a_round(800, echo_us=400)])
    assert figures["vs_echo"] == 2
    assert figures["spread"]["vs_echo"] == [2, 3]


def test_tells_what_one_core_would_carry() -> None:
    assert summary([a_round(200)])["rps_per_core"] == pytest.approx(5000)


def test_adds_up_what_the_filter_adds_at_each_percentile() -> None:
    figures = summary([a_round(1, picked=(2.0, 2.0, 12.0), plain=(1.0, 1.0, 2.0))])
    assert figures["added_p50_ms"] == 1
    assert figures["added_p99_ms"] > 9


def test_survives_a_slice_that_the_clock_cannot_resolve() -> None:
    figures = summary([a_round(0, echo_us=0)])
    assert (figures["vs_echo"], figures["rps_per_core"]) == (0, 0)
