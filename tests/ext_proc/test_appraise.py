from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.appraise import FEW, GROUPS_MAX
from ext_proc.choice import tie
from ext_proc.picker import Picker
from ext_proc.shortlist import SUMS_SECONDS
from fleet.model import Load

if TYPE_CHECKING:
    from ext_proc.decision import Decision
from tests.ext_proc.small import SETTINGS, endpoint, fresh, pick, request

MANY = 60
ADDRESSES = tuple(f"10.0.0.{n}:80" for n in range(MANY))
RATES = (40_000, 20_000, 5_000)


def many(seed: int = 0) -> Picker:
    """Sixty endpoints of three kinds."""
    return Picker(SETTINGS, [endpoint(a, RATES[n % 3]) for n, a in enumerate(ADDRESSES)], seed=seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 20), st.integers(20, 150))
def test_a_shortlist_finds_what_a_look_at_all_would_find(seed: int, requests: int) -> None:
    picker = many(seed)
    draw = random.Random(seed)
    now = 0.0
    open_: list[Decision] = []
    for n in range(requests):
        now += SUMS_SECONDS + draw.expovariate(60)  # every sum is as of now,
        blocks = range(1000 * draw.randrange(12), 1000 * draw.randrange(12) + 4000, draw.choice((10, 40)))
        asked = replace(request(blocks or fresh(n), ADDRESSES), session=f"s{draw.randrange(20)}")
        picker.expire(now)  # and so is every row
        considered = picker.consider(asked, now)
        assert considered is not None
        assert considered.of == MANY
        assert len(considered.candidates) < MANY
        states = list(picker._endpoints.values())
        everywhere = picker._appraiser._all(asked, states, {}, 0.0, now)
        cheapest = min(everywhere, key=lambda candidate: candidate.cost)
        chosen = considered.candidates[0].prediction.address
        found = next(c for c in everywhere if c.prediction.address == chosen)
        assert found.cost <= cheapest.cost + tie(cheapest) + tie(found)
        open_.append(picker.place(asked, considered, now))
        if draw.random() < 0.6:
            over = open_.pop(draw.randrange(len(open_)))
            picker.first_token(over.id, now)
            picker.finish(over.id, now, endpoint=over.endpoints[0], output_tokens=50)


def test_an_idle_fleet_is_used_as_a_whole() -> None:
    picker = Picker(SETTINGS, [endpoint(a, 20_000) for a in ADDRESSES], seed=3)
    used = set()
    for n in range(400):
        decision = pick(picker, request(fresh(n), ADDRESSES), 10.0 * n)
        used.add(decision.endpoints[0])
        picker.first_token(decision.id, 10.0 * n + 1)
        picker.finish(decision.id, 10.0 * n + 2, endpoint=decision.endpoints[0])
    assert len(used) > 0.9 * MANY


def test_a_session_stays_where_it_is_among_many_equals() -> None:
    picker = Picker(SETTINGS, [endpoint(a, 20_000) for a in ADDRESSES], seed=4)
    asked = replace(request((), ADDRESSES), session="a")
    homes = set()
    for n in range(20):
        decision = pick(picker, asked, 100.0 * n)
        homes.add(decision.endpoints[0])
        picker.finish(decision.id, 100.0 * n + 1, endpoint=decision.endpoints[0])
    assert len(homes) == 1


def test_those_that_are_down_are_passed_over_however_many() -> None:
    picker = many()
    for address in ADDRESSES[:-2]:
        picker.observe(address, Load(at=0.0, ready=False), 0.0)
    for n in range(20):
        assert pick(picker, request(fresh(n), ADDRESSES), 1.0).endpoints[0] in ADDRESSES[-2:]


def test_where_all_are_down_one_of_them_is_tried() -> None:
    picker = many()
    for address in ADDRESSES:
        picker.observe(address, Load(at=0.0, ready=False), 0.0)
    assert pick(picker, request(fresh(1), ADDRESSES), 1.0).endpoints[0] in ADDRESSES


def test_only_those_that_serve_the_model_are_chosen() -> None:
    picker = many()
    for address in ADDRESSES:
        picker.observe_loaded(address, ["m"] if address == ADDRESSES[41] else ["other"], None)
    asked = replace(request(fresh(1), ADDRESSES), model="m")
    assert pick(picker, asked, 1.0).endpoints == (ADDRESSES[41],)


def test_few_of_a_large_fleet_are_all_looked_at() -> None:
    picker = many()
    considered = picker.consider(request(fresh(1), ADDRESSES[:FEW]), 0.0)
    assert considered is not None
    assert len(considered.candidates) == considered.of == FEW


def test_strangers_among_many_candidates_are_ignored() -> None:
    picker = many()
    candidates = (*ADDRESSES, *(f"10.9.9.{n}:80" for n in range(20)))
    considered = picker.consider(request(fresh(1), candidates), 0.0)
    assert considered is not None
    assert considered.of == MANY
    assert picker.consider(request(fresh(1), candidates[MANY:]), 0.0) is None


def test_the_group_of_candidates_in_use_is_kept_while_others_come_and_go() -> None:
    appraiser = many()._appraiser
    group = appraiser._group(ADDRESSES)
    assert group is not None
    for n in range(GROUPS_MAX + 10):
        appraiser._group((*ADDRESSES, f"10.9.9.{n}:80"))
        assert appraiser._group(ADDRESSES) is group
    assert len(appraiser._groups) == GROUPS_MAX
