from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.index import MASKS_MAX, PrefixIndex


class BruteForceIndex:
    """The same belief kept the obvious way: per endpoint a list of blocks, least recently used first."""

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}
        self.capacity: dict[str, int] = {}

    def insert(self, address: str, blocks: list[int]) -> list[int]:
        held, new = self.held[address], []
        for block in reversed(blocks[: self.capacity[address]]):
            if block in held:
                held.remove(block)
            else:
                new.append(block)
            held.append(block)
        self.resize(address, self.capacity[address])
        return new

    def resize(self, address: str, capacity: int) -> None:
        self.capacity[address] = max(1, capacity)
        held = self.held[address]
        del held[: max(0, len(held) - self.capacity[address])]

    def remove(self, address: str, blocks: list[int]) -> None:
        self.held[address] = [block for block in self.held[address] if block not in blocks]

    def match(self, blocks: list[int], candidates: list[str]) -> dict[str, int]:
        found = {}
        for address in candidates:
            depth = 0
            while depth < len(blocks) and blocks[depth] in self.held[address]:
                depth += 1
            if depth:
                found[address] = depth
        return found


ADDRESSES = st.sampled_from(["a:1", "b:1", "c:1", "d:1", "e:1"])
CAPACITIES = st.integers(0, 15)
PREFIX = list(range(8))
CHAINS = st.one_of(
    st.lists(st.integers(0, 30), max_size=12, unique=True),
    st.lists(st.integers(8, 30), max_size=6, unique=True).map(lambda tail: PREFIX + tail),
)


class IndexBesideItsTwin(RuleBasedStateMachine):
    """Anything may happen to an index, in any order: it answers as the brute-force one does."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(["a:1", "b:1"], 7)
        self.twin = BruteForceIndex()
        for address in ("a:1", "b:1"):
            self.twin.held[address], self.twin.capacity[address] = [], 7

    def any_known(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.twin.held)))

    @rule(address=ADDRESSES, capacity=CAPACITIES)
    def add(self, address: str, capacity: int) -> None:
        self.index.add(address, capacity)
        self.twin.held.setdefault(address, [])
        self.twin.resize(address, capacity)

    @rule(address=ADDRESSES)
    def discard(self, address: str) -> None:
        self.index.discard(address)
        self.twin.held.pop(address, None)
        self.twin.capacity.pop(address, None)

    @precondition(lambda self: self.twin.held)
    @rule(data=st.data(), chain=CHAINS, times=st.integers(1, 20))
    def insert(self, data: st.DataObject, chain: list[int], times: int) -> None:
        address = self.any_known(data)
        for _ in range(times):
            assert self.index.insert(address, chain) == self.twin.insert(address, chain)

    @precondition(lambda self: self.twin.held)
    @rule(data=st.data(), chain=CHAINS)
    def remove(self, data: st.DataObject, chain: list[int]) -> None:
        address = self.any_known(data)
        self.index.remove(address, chain)
        self.twin.remove(address, chain)

    @precondition(lambda self: self.twin.held)
    @rule(data=st.data(), capacity=CAPACITIES)
    def resize(self, data: st.DataObject, capacity: int) -> None:
        address = self.any_known(data)
        self.index.resize(address, capacity)
        self.twin.resize(address, capacity)

    @precondition(lambda self: self.twin.held)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        address = self.any_known(data)
        self.index.clear(address)
        self.twin.held[address].clear()

    @rule(data=st.data(), chain=CHAINS)
    def match(self, data: st.DataObject, chain: list[int]) -> None:
        known = sorted(self.twin.held)
        candidates = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
        assert self.index.match(chain, candidates) == self.twin.match(chain, candidates)

    @invariant()
    def believes_the_same(self) -> None:
        assert len(self.index) == len(set().union(*self.twin.held.values()))
        for address, held in self.twin.held.items():
            assert self.index.holds(address) == len(held)
            for block in range(31):
                assert bool(self.index.match([block], [address])) == (block in held)


TestIndexBesideItsTwin = IndexBesideItsTwin.TestCase
TestIndexBesideItsTwin.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_later_block_without_its_parents_is_no_match() -> None:
    index = PrefixIndex(["a:1", "b:1"], 10)
    index.insert("a:1", [2, 3])
    index.insert("b:1", [1, 2])
    assert index.match([1, 2, 3], ["a:1", "b:1"]) == {"b:1": 2}


def test_evicts_the_tail_of_the_oldest_chain_first() -> None:
    index = PrefixIndex(["a:1"], 4)
    index.insert("a:1", [1, 2, 3])
    index.insert("a:1", [7, 8])
    assert index.match([1, 2, 3], ["a:1"]) == {"a:1": 2}
    assert index.match([7, 8], ["a:1"]) == {"a:1": 2}


def test_forgets_everything_of_an_endpoint_that_restarted_and_nothing_of_others() -> None:
    index = PrefixIndex(["a:1", "b:1"], 10)
    index.insert("a:1", [1, 2])
    index.insert("b:1", [1])
    index.clear("a:1")
    assert index.match([1, 2], ["a:1", "b:1"]) == {"b:1": 1}
    assert len(index) == 1


def test_shrinks_to_the_capacity_that_the_engine_reports() -> None:
    index = PrefixIndex(["a:1"], 10)
    index.insert("a:1", [1, 2, 3, 4])
    index.resize("a:1", 2)
    assert index.match([1, 2, 3, 4], ["a:1"]) == {"a:1": 2}


def test_takes_back_exactly_what_an_insert_added() -> None:
    index = PrefixIndex(["a:1", "b:1"], 10)
    index.insert("a:1", [1, 2])
    index.insert("b:1", [1, 2, 3])
    added = index.insert("a:1", [1, 2, 3, 4])
    assert sorted(added) == [3, 4]
    index.remove("a:1", added)
    index.remove("a:1", added)
    assert index.match([1, 2, 3, 4], ["a:1", "b:1"]) == {"a:1": 2, "b:1": 3}


def test_an_address_that_takes_over_a_bit_starts_with_nothing() -> None:
    index = PrefixIndex(["a:1", "b:1"], 10)
    index.insert("a:1", [1, 2])
    index.discard("a:1")
    index.add("c:1", 10)
    assert index.match([1, 2], ["b:1", "c:1"]) == {}
    index.insert("c:1", [1])
    assert index.match([1, 2], ["b:1", "c:1"]) == {"c:1": 1}


def test_keeps_the_order_of_use_over_long_use() -> None:
    index, twin = PrefixIndex(["a:1"], 500), BruteForceIndex()
    twin.held["a:1"], twin.capacity["a:1"] = [], 500
    picks = random.Random(7)
    for _ in range(600):
        group = picks.randrange(12)
        chain = [group * 1000 + n for n in range(40)] + [
            picks.getrandbits(64) for _ in range(picks.randrange(4))
        ]
        assert index.insert("a:1", chain) == twin.insert("a:1", chain)
        assert index.holds("a:1") == len(twin.held["a:1"])
    held = set(twin.held["a:1"])
    assert all(bool(index.match([block], ["a:1"])) == (block in held) for block in range(12_000))


def test_matches_on_when_there_are_more_masks_than_it_shares() -> None:
    addresses = [f"10.0.0.{n}:8000" for n in range(15)]
    blocks = range(1, MASKS_MAX + 4_000)
    index = PrefixIndex(addresses, len(blocks))
    for n, address in enumerate(addresses):
        index.insert(address, [block for block in blocks if block >> n & 1])
    for block in range(1, len(blocks), 97):
        held_by = {address: 1 for n, address in enumerate(addresses) if block >> n & 1}
        assert index.match([block], addresses) == held_by


def test_what_was_dumped_is_believed_in_the_same_order_by_who_loads_it() -> None:
    one, two = PrefixIndex(["a", "b"], 10), PrefixIndex(["a", "b"], 10)
    one.insert("a", [1, 2, 3, 4])
    one.insert("b", [1, 2])
    one.insert("a", [7, 8])
    one.remove("a", [3])
    one.insert("a", [1])
    two.load({address: one.dump(address) for address in ("a", "b")})
    for address in ("a", "b"):
        assert two.dump(address) == one.dump(address)
        assert two.holds(address) == one.holds(address)
    assert len(two) == len(one)
    for index in (one, two):
        index.resize("a", 2)
    assert one.dump("a") == two.dump("a")


def test_loading_keeps_to_the_capacity_and_to_whole_blocks() -> None:
    one, two = PrefixIndex(["a"], 10), PrefixIndex(["a"], 3)
    one.insert("a", [5, 4, 3, 2, 1])
    two.load({"a": one.dump("a") + b"\x01\x02"})
    assert two.holds("a") == 3
    assert two.capacity("a") == 3
    assert two.match([5, 4, 3, 2], ["a"]) == {"a": 3}  # the head of a chain is the youngest


def test_loading_into_an_index_that_knows_something_adds_to_it() -> None:
    one, two = PrefixIndex(["a", "b"], 10), PrefixIndex(["a", "b"], 10)
    one.insert("a", [3, 2, 1])
    two.insert("a", [9, 2])
    two.insert("b", [1])
    two.load({"a": one.dump("a")})
    assert two.holds("a") == 4
    assert two.match([1], ["a", "b"]) == {"a": 1, "b": 1}
