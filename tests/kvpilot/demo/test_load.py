from __future__ import annotations

import pytest

from fleet.gpu import prior_rate
from fleet.model import Hardware
from fleet.settings_file import parse
from kvpilot.demo.load import (
    MAX_REQUESTS_PER_SECOND,
    TARGET,
    Arm,
    arms,
    offered_load,
    planned_between,
    session_rate,
    uncached_tokens,
)
from kvpilot.demo.workload import SYSTEM_TOKENS, Session, Turn, mean_turns, plan

THREE_TURNS = Session(0, 0.0, 0, (Turn(0.0, 300, 50), Turn(1.0, 400, 60), Turn(1.0, 500, 70)))
S = SYSTEM_TOKENS[0]


def test_one_endpoint_computes_only_what_is_new() -> None:
    assert uncached_tokens(THREE_TURNS, 1) == [300, 400, 500]


def test_two_endpoints_hold_the_last_turn_half_of_the_time() -> None:
    # Turn 2: half the time at turn 1's endpoint (400 new), else all but the system prompt (300 + 50 + 400).
    # Turn 3: 1/2 behind turn 2 (500 new), 1/4 behind turn 1 (400 + 60 + 500), 1/4 nothing (1310).
    expected = [300, 0.5 * 400 + 0.5 * 750, 0.5 * 500 + 0.25 * 960 + 0.25 * 1310]
    assert uncached_tokens(THREE_TURNS, 2) == pytest.approx(expected)


def test_an_endless_fleet_never_sees_a_conversation_again() -> None:
    assert uncached_tokens(THREE_TURNS, 10**9) == pytest.approx([p - S for p in THREE_TURNS.prompt_tokens()])


def test_the_slowest_endpoint_limits_its_version_and_the_fullest_version_the_fleet() -> None:
    slow_one = Arm(0.5, (1000.0, 4000.0))  # carries 2 x 1000
    fast = Arm(0.5, (10_000.0,))
    sent = [(THREE_TURNS, 0), (THREE_TURNS, 0)]  # 600 tokens, half of them to each version
    assert offered_load((slow_one, fast), sent, 2.0) == pytest.approx(0.5 * 600 / 2.0 / 2000)
    assert offered_load((fast,), sent, 2.0) == pytest.approx(0.5 * 600 / 2.0 / 10_000)


def test_rates_come_from_the_catalogue_times_an_emulated_pools_speed() -> None:
    pools: list[dict[str, object]] = [
        {"name": "a", "gpu": "H100-80GB", "tensor_parallel": 4, "emulated": {"count": 2, "speed": 3}},
        {"name": "b", "gpu": "L4-24GB", "endpoints": ["10.0.0.1:8000"]},
    ]
    versions = [
        {"name": "v1", "weight": 3, "pools": pools},
        {"name": "v2", "weight": 1, "pools": [pools[1] | {"endpoints": ["10.0.0.2:8000"]}]},
        {"name": "off", "weight": 0, "pools": [pools[1] | {"endpoints": ["10.0.0.3:8000"]}]},
    ]
    model = {"name": "m", "parameters_billion": 8, "versions": versions}
    settings = parse({"models": [model]}, "test")
    h100 = prior_rate(Hardware("H100-80GB", 4), 8e9).prefill
    l4 = prior_rate(Hardware("L4-24GB"), 8e9).prefill
    assert arms(settings.models[0]) == (Arm(0.75, (3 * h100, 3 * h100, l4)), Arm(0.25, (l4,)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("seconds", [10.0, 20.0])
def test_every_seed_offers_the_same_share_of_what_round_robin_carries(seed: int, seconds: float) -> None:
    fleet = (Arm(0.9, (21_000.0, 21_000.0, 6800.0, 6800.0, 26_000.0)), Arm(0.1, (11_000.0,)))
    start, end = 2.0, 2.0 + seconds
    rate = session_rate(fleet, seed, (start, end), 1.0)
    turns = planned_between(plan(seed, rate, end, 1.0), start, end)
    assert offered_load(fleet, turns, seconds) == pytest.approx(TARGET, abs=0.04)


def test_a_fleet_however_fast_is_sent_no_more_than_the_cap() -> None:
    fleet = (Arm(1.0, (1e9, 1e9)),)
    rate = session_rate(fleet, 1, (2.0, 22.0), 1.0)
    assert rate <= MAX_REQUESTS_PER_SECOND / mean_turns()
    turns = planned_between(plan(1, rate, 22.0, 1.0), 2.0, 22.0)
    assert len(turns) / 20.0 < 1.2 * MAX_REQUESTS_PER_SECOND
