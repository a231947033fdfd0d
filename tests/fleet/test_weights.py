from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.gpu import prior_rate
from fleet.model import Endpoint, Fleet, Hardware, Load, Model, Rate, Version
from fleet.settings import WeightSettings
from fleet.weights import MAX_WEIGHT, WeightController, admitted, headroom, target_weights

NOW = 1_000.0
STALE_AFTER = 10.0
H100, A100 = "10.0.0.1:8000", "10.0.0.2:8000"


def endpoint(address: str, gpu: str = "H100-80GB") -> Endpoint:
    return Endpoint(
        address, "m", "stable", gpu.lower(), Hardware(gpu, 4), prior=prior_rate(Hardware(gpu, 4), 32e9)
    )


def fleet(*endpoints: Endpoint) -> Fleet:
    return Fleet((Model("m", (Version("stable", 100, endpoints),)),))


MIXED = fleet(endpoint(H100), endpoint(A100, "A100-80GB"))


def controller(steering: Any = "steered", **settings: float) -> WeightController:
    return WeightController(MIXED, WeightSettings(**{"smoothing": 0.5, **settings}), steering, STALE_AFTER)


def test_starts_from_what_the_hardware_should_do() -> None:
    weights = controller().update(NOW, {}, {})
    assert weights is not None
    assert weights[H100] == MAX_WEIGHT
    assert weights[A100] == round(MAX_WEIGHT * 312 / 989)


def test_a_learned_rate_replaces_the_prior_once_something_was_observed() -> None:
    learned = {A100: Rate(prefill=1e9, tpot=0.01, at=NOW, observations=3)}
    weights = controller().update(NOW, {}, learned)
    assert weights is not None
    assert weights[A100] == MAX_WEIGHT
    unobserved = {A100: Rate(prefill=1e9, tpot=0.01)}
    assert controller().update(NOW, {}, unobserved) == controller().update(NOW, {}, {})


def test_a_busy_endpoint_gives_way() -> None:
    busy = {H100: Load(NOW, kv_blocks_used=95, kv_blocks_max=100, waiting=40)}
    weights = controller().update(NOW, busy, {})
    assert weights is not None
    assert weights[A100] == MAX_WEIGHT
    assert weights[H100] < MAX_WEIGHT / 2


def test_an_old_scrape_says_nothing_about_headroom_or_health() -> None:
    old = Load(NOW - 60, ready=False, kv_blocks_used=95, kv_blocks_max=100, waiting=40)
    assert headroom(old, NOW, stale_after=10) == 1.0
    assert controller().update(NOW, {H100: old}, {}) == controller().update(NOW, {}, {})


def test_an_unready_endpoint_is_ejected_at_once_and_comes_back() -> None:
    weights = controller()
    weights.update(NOW, {}, {})
    without = weights.update(NOW + 1, {H100: Load(NOW + 1, ready=False, reason="refused")}, {})
    assert without is not None
    assert set(without) == {A100}
    again = weights.update(NOW + 2, {H100: Load(NOW + 2)}, {})
    assert again is not None
    assert set(again) == {H100, A100}


def test_a_cluster_whose_endpoints_all_look_dead_keeps_them_all() -> None:
    dead = {a: Load(NOW, ready=False) for a in (H100, A100)}
    weights = controller().update(NOW, dead, {})
    assert weights is not None
    assert set(weights) == {H100, A100}


def test_moves_only_a_part_of_the_way_in_one_interval() -> None:
    weights = controller(hysteresis=0)
    before = weights.update(NOW, {}, {})
    after = weights.update(NOW + 1, {}, {A100: Rate(1e9, 0.01, NOW, 1)})
    assert before is not None
    assert after is not None
    assert after[A100] == round((MAX_WEIGHT * 312 / 989 + MAX_WEIGHT) / 2)


def test_small_changes_are_not_pushed() -> None:
    weights = controller(hysteresis=0.2)
    weights.update(NOW, {}, {})
    slightly_busy = {A100: Load(NOW, kv_blocks_used=10, kv_blocks_max=100)}
    assert all(weights.update(NOW, slightly_busy, {}) is None for _ in range(20))


def test_small_changes_that_add_up_are_pushed() -> None:
    weights = controller(hysteresis=0.1)
    weights.update(NOW, {}, {})
    pushed = [
        weights.update(NOW, {A100: Load(NOW, kv_blocks_used=used, kv_blocks_max=100)}, {})
        for used in range(0, 50, 2)
    ]
    assert any(pushed)


def test_round_robin_is_equal_for_all_but_the_dead() -> None:
    rates = {A100: Rate(1e9, 0.01, NOW, 9)}
    assert controller("round_robin").update(NOW, {}, rates) == {H100: MAX_WEIGHT, A100: MAX_WEIGHT}
    dead = {A100: Load(NOW, ready=False)}
    assert controller("round_robin").update(NOW, dead, rates) == {H100: MAX_WEIGHT}


def test_a_restart_goes_on_from_the_stored_weights() -> None:
    weights = controller(hysteresis=0)
    weights.resume({H100: 1000, A100: 900, "10.9.9.9:1": 1000})
    assert weights.update(NOW, {}, {}) == {H100: 1000, A100: 900}
    moved = weights.update(NOW + 1, {}, {})
    assert moved is not None
    assert moved[A100] < 900


loads = st.builds(
    Load,
    at=st.floats(NOW - 30, NOW),
    ready=st.booleans(),
    kv_blocks_used=st.integers(0, 200),
    kv_blocks_max=st.integers(0, 100),
    waiting=st.integers(0, 10_000),
)
rates = st.builds(
    Rate, prefill=st.floats(0, 1e9), tpot=st.just(0.01), at=st.just(NOW), observations=st.integers(0, 3)
)
addresses = [f"10.0.0.{i}:8000" for i in range(1, 6)]


@given(st.dictionaries(st.sampled_from(addresses), loads), st.dictionaries(st.sampled_from(addresses), rates))
def test_weights_are_positive_integers_for_exactly_the_admitted(
    loads_by_address: dict[str, Load], rates_by_address: dict[str, Rate]
) -> None:
    endpoints = tuple(endpoint(a) for a in addresses)
    made = WeightController(fleet(*endpoints), WeightSettings(), "steered", STALE_AFTER)
    weights = made.update(NOW, loads_by_address, rates_by_address)
    assert weights is not None
    assert all(1 <= w <= MAX_WEIGHT for w in weights.values())
    assert set(weights) == {e.address for e in admitted(endpoints, loads_by_address, NOW, STALE_AFTER)}


@given(st.dictionaries(st.sampled_from(addresses), st.floats(1, 1e6), min_size=2), st.floats(1.01, 100))
def test_a_faster_endpoint_never_weighs_less_against_the_others(
    speeds: dict[str, float], factor: float
) -> None:
    faster = min(speeds)
    before = target_weights(speeds, {}, NOW, 10)
    after = target_weights({**speeds, faster: speeds[faster] * factor}, {}, NOW, 10)
    slack = 1 + 1e-9  # rounding of floats
    assert after[faster] * slack >= before[faster]
    assert all(after[a] <= before[a] * slack for a in speeds if a != faster)
