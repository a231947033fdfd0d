from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.index import PrefixIndex


class BruteForceIndex:
    """The same belief kept the obvious way: per endpoint a list of blocks, least recently used first."""

    def __init__(self, addresses: list[str], capacity: int) -> None:
        self.held: dict[str, list[int]] = {address: [] for address in addresses}
        self.capacity = capacity

    def insert(self, address: str, blocks: list[int]) -> None:
        held = self.held[address]
        for block in reversed(blocks[: self.capacity]):
            if block in held:
                held.remove(block)
            held.append(block)
        del held[: max(0, len(held) - self.capacity)]

    def match(self, blocks: list[int], candidates: list[str]) -> dict[str, int]:
        found = {}
        for address in candidates:
            depth = 0
            while depth < len(blocks) and blocks[depth] in self.held[address]:
                depth += 1
            if depth:
                found[address] = depth
        return found


ADDRESSES = ["a:1", "b:1", "c:1"]
CHAINS = st.lists(st.integers(0, 30), max_size=12, unique=True)


@given(
    inserts=st.lists(st.tuples(st.sampled_from(ADDRESSES), CHAINS), max_size=30),
    asked=CHAINS,
    candidates=st.lists(st.sampled_from(ADDRESSES), unique=True),
    capacity=st.integers(1, 15),
)
def test_matches_what_a_brute_force_index_matches(
    inserts: list[tuple[str, list[int]]], asked: list[int], candidates: list[str], capacity: int
) -> None:
    index, twin = PrefixIndex(ADDRESSES, capacity), BruteForceIndex(ADDRESSES, capacity)
    for address, blocks in inserts:
        index.insert(address, blocks)
        twin.insert(address, blocks)
    assert index.match(asked, candidates) == twin.match(asked, candidates)
    assert len(index) == len(set().union(*twin.held.values()))


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
