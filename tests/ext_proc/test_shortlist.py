from __future__ import annotations

import random

import numpy as np
import pytest

from ext_proc.price import KV_PRICE_SECONDS
from ext_proc.request import RoutingRequest
from ext_proc.shortlist import AT_ONCE, Board, Group
from fleet.cost_model import CostModel
from fleet.index import PrefixIndex
from fleet.ledger import REQUEST_OVERHEAD_SECONDS
from fleet.model import Load
from tests.ext_proc.small import make_state

RATE = 10_000.0
NOW = 50.0
MANY = 40


class Fleet:
    """Forty endpoints of equal rate, idle, and their group."""

    def __init__(self, many: int = MANY) -> None:
        costs = CostModel()
        self.states = [make_state(f"10.0.0.{n}:80", RATE, costs) for n in range(many)]
        self.addresses = [state.endpoint.address for state in self.states]
        self.board = Board(self.states, seed=1)
        index = PrefixIndex(self.addresses, 1000)
        self.group = Group(self.states, index.members(self.addresses), self.board)

    def place(self, n: int, work: float) -> None:
        state = self.states[n]
        state.ledger.place(f"{n}", work, NOW, observable=True)
        state.changed()

    def batches(
        self,
        tokens: float = 1000,
        matched: dict[str, int] | None = None,
        reserved: dict[str, float] | None = None,
        offset: int = 0,
    ) -> list[tuple[list[int], float]]:
        waits = self.group.waits(NOW)
        asked = RoutingRequest(self.addresses, tokens, (), 10.0)
        blocks = np.array([float((matched or {}).get(address, 0)) for address in self.addresses])
        look = self.group.look(waits, asked, blocks, reserved or {}, tokens, 0.0, 1.0, offset)
        return [([state.row for state in batch], bound) for batch, bound in look.batches()]


def test_every_endpoint_comes_once_and_the_last_bound_is_infinite() -> None:
    batches = Fleet().batches()
    assert sorted(row for rows, _ in batches for row in rows) == list(range(MANY))
    assert [len(rows) for rows, _ in batches] == [AT_ONCE] * (MANY // AT_ONCE)
    assert batches[-1][1] == float("inf")


def test_a_queue_puts_an_endpoint_behind_those_that_have_none() -> None:
    fleet = Fleet()
    for n in range(AT_ONCE, MANY):
        fleet.place(n, 5000)
    (rows, bound), *_ = fleet.batches()
    assert sorted(rows) == list(range(AT_ONCE))
    assert bound > 5000 / RATE


def test_what_is_reserved_counts_as_a_queue() -> None:
    fleet = Fleet()
    reserved = dict.fromkeys(fleet.addresses[AT_ONCE:], 0.5)
    assert sorted(fleet.batches(reserved=reserved)[0][0]) == list(range(AT_ONCE))


def test_whoever_holds_the_prompt_comes_before_others_as_far_as_it_is_trusted() -> None:
    fleet = Fleet()
    assert 17 in fleet.batches(matched={fleet.addresses[17]: 90})[0][0]
    fleet.place(17, 500)  # a wait of half of what the match saves
    assert 17 in fleet.batches(matched={fleet.addresses[17]: 90})[0][0]
    fleet.states[17].trust = 0.1
    fleet.states[17].changed()
    assert 17 not in fleet.batches(matched={fleet.addresses[17]: 90})[0][0]


def test_the_bound_of_an_idle_endpoint_is_its_own_prefill() -> None:
    fleet = Fleet(AT_ONCE + 1)
    state = fleet.states[0]
    fastest = RATE * (1 + 0.5 * state.rates.uncertainty)
    expected = REQUEST_OVERHEAD_SECONDS + 1000 / fastest
    assert fleet.batches()[0][1] == pytest.approx(expected)


def test_room_in_the_kv_cache_counts_by_its_square() -> None:
    fleet = Fleet(AT_ONCE + 1)
    for state in fleet.states:
        state.observe(Load(at=NOW, kv_blocks_max=100, tokens_per_block=100), NOW)
        state.changed()
    with_memory = fleet.batches()[0][1]
    assert with_memory == pytest.approx(Fleet(AT_ONCE + 1).batches()[0][1] + KV_PRICE_SECONDS * 0.01)


def test_among_equals_the_least_busy_come_first_and_otherwise_chance_decides() -> None:
    fleet = Fleet()
    firsts = {frozenset(fleet.batches(offset=offset)[0][0]) for offset in range(MANY)}
    assert len(firsts) > MANY / 2
    for n in range(AT_ONCE, MANY):  # an answer being decoded delays no prefill by much, but is company
        fleet.states[n].ledger.decodes.add("answer")
        fleet.states[n].changed()
    assert sorted(fleet.batches()[0][0]) == list(range(AT_ONCE))


def test_a_row_is_written_anew_only_where_something_changed() -> None:
    fleet = Fleet()
    fleet.batches()
    fleet.states[3].ledger.place("unseen", 5000, NOW, observable=True)
    assert fleet.board.free_at[3] == float("-inf")
    fleet.batches()
    assert fleet.board.free_at[3] == float("-inf")
    fleet.board.refresh()
    fleet.batches()
    assert fleet.board.free_at[3] > NOW


def test_blocks_are_those_that_the_index_finds_whatever_bits_the_endpoints_have() -> None:
    fleet = Fleet()
    index = PrefixIndex(["gone", *fleet.addresses[::-1]], 1000)
    index.discard("gone")
    some = fleet.addresses[5:30]
    group = Group(fleet.states[5:30], index.members(some), fleet.board)
    for n, address in enumerate(fleet.addresses):
        index.insert(address, range(n % 7))
    asked = range(4)
    found = group.blocks(index.depths(asked, group.members))
    matched = index.match(asked, some)
    assert list(found) == [matched.get(address, 0) for address in some]
    assert set(found) == {0, 1, 2, 3, 4}
    assert group.matched(found, fleet.states[6:8]) == {a: found[n + 1] for n, a in enumerate(some[1:3])}


def test_waits_are_those_of_the_ledgers() -> None:
    fleet = Fleet()
    for n in range(1, MANY):
        fleet.place(n, 1000 * n)
    waits = fleet.group.waits(NOW + 0.2)
    assert waits[0] == pytest.approx(0.0, abs=1e-6)
    assert list(waits) == [
        pytest.approx(state.ledger.wait_seconds(NOW + 0.2, state.rates.prefill), abs=1e-6)
        for state in fleet.states
    ]


def test_sums_stand_for_a_moment() -> None:
    fleet = Fleet()
    first = fleet.group.sums(NOW)
    fleet.states[0].demand.placed(1000, 0.1, NOW)
    assert fleet.group.sums(NOW + 0.1) is first
    assert fleet.group.sums(NOW + 0.3).arrivals > first.arrivals


def test_finds_members_by_address() -> None:
    fleet = Fleet()
    address = random.Random(1).choice(fleet.addresses)
    found = fleet.group.at(address)
    assert found is not None
    assert found.endpoint.address == address
    assert fleet.group.at("10.9.9.9:80") is None
    assert fleet.group.at(None) is None
