from __future__ import annotations

from collections import Counter

from sim.policies.plain import (
    BoundedHash,
    LeastRequests,
    PowerOfTwo,
    RandomChoice,
    Ring,
    RoundRobin,
    SessionHash,
)
from tests.sim.policies.routing import busy, decided, prompt, started


def test_round_robin_takes_each_endpoint_in_turn() -> None:
    policy = started(RoundRobin(), 3)
    assert [policy.place(prompt(1, id_=n), 0.0) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_random_reaches_every_endpoint() -> None:
    assert decided(started(RandomChoice(), 4), prompt(1)) == {0, 1, 2, 3}


def test_least_requests_draws_among_the_least_busy() -> None:
    policy = busy(started(LeastRequests(), 4), [2, 1, 3, 1])
    assert decided(policy, prompt(1)) == {1, 3}


def test_power_of_two_never_takes_the_busiest_and_not_always_the_idlest() -> None:
    policy = busy(started(PowerOfTwo(), 3), [9, 5, 0])
    assert decided(policy, prompt(1)) == {1, 2}


def test_power_of_two_copes_with_one_endpoint() -> None:
    assert decided(started(PowerOfTwo(), 1), prompt(1)) == {0}


def test_a_session_stays_where_it_is_however_busy() -> None:
    policy = started(SessionHash(), 4)
    (home,) = decided(policy, prompt(1, session="s"))
    busy(policy, [1000 * (n == home) for n in range(4)])
    assert decided(policy, prompt(9, first=50, session="s")) == {home}


def test_sessions_spread_evenly_over_the_ring() -> None:
    policy = started(SessionHash(), 4)
    shares = Counter(policy.choose(prompt(1, session=f"s{n}"), 0.0).endpoint for n in range(2000))
    assert all(350 < share < 650 for share in shares.values())
    assert len(shares) == 4


def test_an_endpoint_that_leaves_moves_only_its_own_sessions() -> None:
    addresses = ["a", "b", "c", "d"]
    before, after = Ring(addresses), Ring(addresses[:3])
    owners = [(next(before.walk(f"s{n}")), next(after.walk(f"s{n}"))) for n in range(500)]
    assert all(old == new for old, new in owners if old != 3)
    assert {new for old, new in owners if old == 3} == {0, 1, 2}


def test_a_walk_of_the_ring_meets_every_endpoint() -> None:
    assert set(Ring(["a", "b", "c"]).walk("key")) == {0, 1, 2}


def test_a_request_without_a_session_has_no_home() -> None:
    assert decided(started(SessionHash(), 3), prompt(3)) == {0, 1, 2}


def test_bounded_load_hashes_prompts_without_a_session_by_their_beginning() -> None:
    policy = started(BoundedHash(), 4)
    homes = {first: decided(policy, prompt(2, first)) for first in range(30)}
    assert all(len(home) == 1 for home in homes.values())
    assert decided(policy, prompt(9, first=3)) == homes[3]
    assert len(set.union(*homes.values())) == 4


def test_bounded_load_passes_on_what_exceeds_1_25_times_the_mean() -> None:
    policy = started(BoundedHash(), 4)
    homes = [policy.place(prompt(1, id_=n, session="s"), 0.0) for n in range(5)]
    # Bounds ceil(1.25 * total / 4): 1, 1, 1, 2, 2. Three in a row go on; then home has room again, until two.
    assert len(set(homes[:3])) == 3
    assert homes[3] == homes[0]
    assert homes[4] == homes[1]


def test_bounded_load_without_a_key_draws_among_those_with_room() -> None:
    policy = busy(started(BoundedHash(), 3), [3, 1, 1])  # bound ceil(1.25 * 6 / 3) = 3
    assert decided(policy, prompt(0, tokens=20)) == {1, 2}
