from __future__ import annotations

import pytest

from ext_proc.watchdog import (
    BEATS_MISSED,
    CALM_SECONDS,
    CONFIRM_LOOKS,
    HOLD_GRACE_SECONDS,
    LoopWatch,
    Standing,
    UnderWay,
    Watchdog,
)

LIMIT, HOLD = 0.125, 120.0  # exact in binary


@pytest.fixture
def watchdog() -> Watchdog:
    made = Watchdog(LIMIT, HOLD)
    made.ready = True
    return made


def looks(watchdog: Watchdog, now: float) -> Standing:
    """What as many looks find as it takes to believe it."""
    return [watchdog.look(now) for _ in range(CONFIRM_LOOKS)][-1]


def test_is_starting_until_a_first_state_is_there() -> None:
    watchdog = Watchdog(LIMIT, HOLD)
    assert watchdog.look(0.0) is Standing.STARTING
    watchdog.ready = True
    assert watchdog.look(0.1) is Standing.SERVING


def test_a_pick_under_way_for_too_long_hangs_and_the_standing_recovers_after_a_calm(
    watchdog: Watchdog,
) -> None:
    watchdog.picks.began("a", 10.0)
    assert looks(watchdog, 10.0 + LIMIT) is Standing.SERVING
    assert looks(watchdog, 10.3) is Standing.HANGING
    watchdog.picks.ended("a", 10.4)
    assert looks(watchdog, 10.4) is Standing.HANGING
    assert looks(watchdog, 10.29 + CALM_SECONDS) is Standing.HANGING
    assert looks(watchdog, 10.3 + CALM_SECONDS) is Standing.SERVING


def test_one_look_does_not_condemn_what_a_long_computation_delayed(watchdog: Watchdog) -> None:
    watchdog.picks.began("a", 10.0)
    assert watchdog.look(10.5) is Standing.SERVING
    watchdog.picks.ended("a", 10.51)
    assert looks(watchdog, 10.55) is Standing.SERVING


def test_one_slow_pick_among_others_that_get_through_condemns_nobody(watchdog: Watchdog) -> None:
    watchdog.picks.began("slow", 10.0)
    for n in range(20):
        watchdog.picks.began(n, 10.0 + n / 10)
        watchdog.picks.ended(n, 10.001 + n / 10)
        assert watchdog.look(10.05 + n / 10) is Standing.SERVING


def test_picks_that_envoy_takes_away_one_after_the_other_still_count_as_hanging(watchdog: Watchdog) -> None:
    now, standing = 10.0, Standing.SERVING
    for n in range(100):  # one every 50 ms, each given up after Envoy's 250 ms
        now = 10.0 + n / 20
        watchdog.picks.began(n, now)
        watchdog.dropped(n - 5)
        standing = watchdog.look(now)
        if n >= 6:
            assert standing is Standing.HANGING
    assert watchdog.look(now + CALM_SECONDS / 2) is Standing.HANGING


def test_a_request_held_on_purpose_does_not_hang_but_one_held_past_its_time_does(watchdog: Watchdog) -> None:
    watchdog.holds.began("a", 10.0)
    assert looks(watchdog, 10.0 + HOLD) is Standing.SERVING
    assert looks(watchdog, 10.1 + HOLD + HOLD_GRACE_SECONDS) is Standing.HANGING
    watchdog.dropped("a")
    assert looks(watchdog, 10.2 + HOLD + HOLD_GRACE_SECONDS + CALM_SECONDS) is Standing.SERVING


def test_nothing_is_left_of_what_ended_or_was_dropped_in_any_order() -> None:
    under_way = UnderWay(LIMIT)
    for n in range(100):
        under_way.began(n, float(n))
    for n in range(0, 100, 2):
        under_way.ended(n, 100.0)
    for n in range(100):
        under_way.dropped(n)
    assert len(under_way) == 0
    assert not under_way.hang(1e9)


def test_a_loop_is_stuck_only_when_no_beat_came_between_many_looks() -> None:
    watch = LoopWatch()
    for _ in range(100):
        watch.beat()
        assert not any(watch.look() for _ in range(BEATS_MISSED))
    assert watch.look()
    watch.beat()
    assert not watch.look()
