from __future__ import annotations

from ext_proc.health import FIRST_EJECTION_SECONDS, LONGEST_EJECTION_SECONDS, PROBE_SECONDS, Health


def ejected_at(now: float) -> Health:
    health = Health()
    assert not health.failed(now)
    assert health.failed(now)
    return health


def test_one_failure_is_forgiven_and_two_in_a_row_eject() -> None:
    health = Health()
    health.failed(1.0)
    assert health.usable(1.0)
    health.succeeded(placed_at=1.5)
    health.failed(1.0)
    assert health.usable(1.0)
    health.failed(1.0)
    assert not health.usable(1.0)


def test_lets_one_probe_through_when_the_ejection_is_over() -> None:
    health = ejected_at(10.0)
    later = 10.0 + FIRST_EJECTION_SECONDS
    assert not health.usable(later - 0.01)
    assert health.usable(later)
    health.picked(later)
    assert not health.usable(later + 0.1)
    assert health.usable(later + PROBE_SECONDS)  # nobody heard of the probe


def test_a_probe_that_succeeds_ends_the_ejection() -> None:
    health = ejected_at(10.0)
    health.picked(11.0)
    health.succeeded(placed_at=11.0)
    assert health.usable(11.0)
    assert not health.ejected


def test_each_failed_probe_doubles_the_wait_up_to_a_bound() -> None:
    health = ejected_at(0.0)
    now, waits = FIRST_EJECTION_SECONDS, []
    for _ in range(8):
        health.picked(now)
        health.failed(now)
        waits.append(health.ejected_until - now)
        now = health.ejected_until
    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_EJECTION_SECONDS


def test_failures_of_requests_already_under_way_do_not_lengthen_the_ejection() -> None:
    health = ejected_at(10.0)
    until = health.ejected_until
    for _ in range(20):
        assert not health.failed(10.2)
    assert health.ejected_until == until


def test_an_answer_to_a_request_from_before_the_failures_proves_nothing() -> None:
    health = ejected_at(10.0)
    health.succeeded(placed_at=9.0)
    assert health.ejected


def test_after_a_success_the_next_ejection_is_short_again() -> None:
    health = ejected_at(0.0)
    health.picked(1.0)
    health.failed(1.0)
    health.picked(3.0)
    health.succeeded(placed_at=3.0)
    health.failed(4.0)
    health.failed(4.0)
    assert health.ejected_until == 4.0 + FIRST_EJECTION_SECONDS
