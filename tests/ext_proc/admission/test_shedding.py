from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ext_proc.admission.shedding import RAMP, Saturation, Shedder
from fleet.settings import AdmissionSettings, LevelSettings

LEVELS = AdmissionSettings().levels
IDLE = Saturation(0.0, 0.0)


def make_shedder(seed: int = 0) -> Shedder:
    return Shedder(LEVELS, {}, seed)


def shed_share(shedder: Shedder, priority: int, saturation: Saturation) -> float:
    return sum(shedder.sheds("", priority, 100.0, saturation, 0.0) for _ in range(1000)) / 1000


def test_a_priority_belongs_to_the_last_level_that_is_not_above_it() -> None:
    shedder = make_shedder()
    assert [shedder.level(p) for p in (-1000, -1, 0, 9, 10, 1000)] == [0, 0, 1, 1, 2, 2]
    assert Shedder((LevelSettings(priority=5),), {}, 0).level(-3) == 0


def test_nobody_is_turned_away_while_there_is_room() -> None:
    shedder = make_shedder()
    for priority in (-1000, 0, 1000):
        assert shed_share(shedder, priority, Saturation(LEVELS[0].wait_seconds, 0.9)) == 0


@given(
    wait=st.floats(0, 500),
    kv_share=st.floats(0, 1),
    low=st.integers(-1000, 1000),
    high=st.integers(-1000, 1000),
)
def test_the_lowest_go_first_and_entirely(wait: float, kv_share: float, low: int, high: int) -> None:
    shedder = make_shedder()
    low, high = shedder.level(min(low, high)), shedder.level(max(low, high))
    saturation = Saturation(wait, kv_share)
    if low < high and shedder.share(high, saturation) > 0:
        assert shedder.share(low, saturation) == 1
    assert 0 <= shedder.share(high, saturation) <= shedder.share(low, saturation) <= 1


@given(wait=st.floats(0, 500), more=st.floats(0, 500), kv_share=st.floats(0, 1), level=st.integers(0, 2))
def test_a_longer_wait_turns_away_no_fewer(wait: float, more: float, kv_share: float, level: int) -> None:
    shedder = make_shedder()
    before = shedder.share(level, Saturation(wait, kv_share))
    assert shedder.share(level, Saturation(wait + more, kv_share)) >= before


def test_the_highest_are_served_until_they_are_over_their_own_limit() -> None:
    shedder = make_shedder()
    assert shed_share(shedder, 10, Saturation(LEVELS[2].wait_seconds, 1.0)) == 0
    assert shed_share(shedder, 10, Saturation(RAMP * LEVELS[2].wait_seconds, 0.0)) == 1


def test_within_the_ramp_a_share_is_turned_away_evenly_and_the_same_for_the_same_seed() -> None:
    middle = Saturation(LEVELS[0].wait_seconds * (1 + RAMP) / 2, 0.0)
    twins = (make_shedder(), make_shedder())
    runs = [[shedder.sheds("", -10, 100.0, middle, 0.0) for _ in range(1000)] for shedder in twins]
    assert runs[0] == runs[1]
    for at in range(0, 1000, 20):
        assert 9 <= sum(runs[0][at : at + 20]) <= 11


def test_full_caches_turn_away_the_lowest_too() -> None:
    shedder = make_shedder()
    assert shed_share(shedder, -10, Saturation(0.0, 0.99)) == 1
    assert 0 < shed_share(shedder, 0, Saturation(0.0, 0.99)) < 1
    assert shed_share(shedder, 10, Saturation(0.0, 1.0)) == 0


def test_of_one_priority_the_tenant_that_asks_for_most_loses_first() -> None:
    shedder = make_shedder()
    slightly = Saturation(LEVELS[1].wait_seconds * 1.1, 0.0)  # a fifth must go
    turned_away = {"hog": 0, "small": 0}
    for n in range(-1000, 2000):
        if n == 0:
            turned_away = dict.fromkeys(turned_away, 0)  # by now it is known who asks for how much
        tenant = "small" if n % 10 == 0 else "hog"
        turned_away[tenant] += shedder.sheds(tenant, 0, 100.0, slightly, n * 0.01)
    assert turned_away["small"] == 0
    assert 300 < turned_away["hog"] < 500


def test_crowded_is_where_turning_away_would_begin() -> None:
    shedder = make_shedder()
    for priority in (-10, 0, 10):
        limit = LEVELS[shedder.level(priority)].wait_seconds
        assert not shedder.crowded(priority, Saturation(limit, 0.5))
        assert shedder.crowded(priority, Saturation(limit + 0.1, 0.5))
    assert shedder.crowded(-10, Saturation(0.0, 0.95))
    assert not shedder.crowded(10, Saturation(0.0, 1.0))
