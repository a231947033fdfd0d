from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.kvcache import BlockCache, CacheChange, CacheTrial, Lease

CAPACITY = 7
LONGEST = 5


def chain(tokens: str) -> list[int]:
    """Names of the prefixes of `tokens`, one block per character: a name stands for all before it."""
    return [int("1" + tokens[: end + 1]) for end in range(len(tokens))]


def parent(block: int) -> int:
    return block // 10


class Reference:
    """The same cache by brute force: every block with its holders and the moment it fell idle."""

    def __init__(self) -> None:
        self.clock = 0
        self.holders: dict[int, int] = {}
        self.idle_since: dict[int, int] = {}
        self.private = 0

    def match(self, blocks: list[int]) -> int:
        return next((n for n, block in enumerate(blocks) if block not in self.holders), len(blocks))

    def acquire(self, blocks: list[int], total: int) -> bool:
        matched = blocks[: self.match(blocks)]
        busy = {block for block, count in self.holders.items() if count} | set(matched)
        if len(busy) + self.private + total - len(matched) > CAPACITY:
            return False
        for block in matched:
            self.holders[block] += 1
        self.private += total - len(matched)
        while len(self.holders) + self.private > CAPACITY:
            idle = [block for block, count in self.holders.items() if not count]
            del self.holders[min(idle, key=lambda block: self.idle_since[block])]
        return True

    def commit(self, blocks: list[int]) -> None:
        self.private -= len(blocks)
        for block in blocks:
            self.holders[block] = self.holders.get(block, 0) + 1

    def release(self, pinned: list[int], private: int) -> None:
        for block in reversed(pinned):
            self.clock += 1
            self.holders[block] -= 1
            self.idle_since[block] = self.clock
        self.private -= private


every_block = {int("1" + "".join(p)) for size in range(1, LONGEST + 1) for p in product("12", repeat=size)}
requests = st.tuples(st.text("12", min_size=1, max_size=LONGEST), st.integers(0, 2))
Plan = list[tuple[tuple[str, int], int, bool]]
steps = st.lists(st.tuples(requests, st.integers(0, 3), st.booleans()), max_size=25)


@given(steps)
@settings(max_examples=150)
def test_holds_exactly_what_a_brute_force_cache_holds(plan: Plan) -> None:
    cache, reference = BlockCache(CAPACITY), Reference()
    running: list[tuple[Lease, list[int]]] = []
    for (tokens, extra), victim, computed in plan:
        blocks = chain(tokens)
        lease = cache.acquire(blocks, len(blocks) + extra)
        assert (lease is not None) == reference.acquire(blocks, len(blocks) + extra)
        if lease is not None:
            running.append((lease, blocks))
        if victim < len(running):
            lease, blocks = running.pop(victim)
            if computed:
                rest = blocks[len(lease.pinned) :]
                lease = cache.commit(lease, rest)
                reference.commit(rest)
            reference.release(list(lease.pinned), lease.private)
            cache.release(lease)
        assert cache.used == sum(1 for count in reference.holders.values() if count) + reference.private
        assert cache.used <= CAPACITY
        assert {block for block in every_block if cache.match([block])} == set(reference.holders)
        for block in reference.holders:
            assert parent(block) == 1 or cache.match([parent(block)]) == 1, "a block without its prefix"
    for lease, _ in running:
        cache.release(lease)
    assert cache.used == 0


def test_matches_only_an_unbroken_prefix() -> None:
    cache = BlockCache(8)
    lease = cache.acquire([], 3)
    assert lease is not None
    cache.commit(lease, chain("123"))
    assert cache.match(chain("123")) == 3
    assert cache.match(chain("1223")) == 2
    assert cache.match([999, *chain("123")]) == 0


def test_two_requests_that_computed_the_same_block_keep_one_copy() -> None:
    cache = BlockCache(8)
    first, second = cache.acquire([], 2), cache.acquire([], 2)
    assert first is not None
    assert second is not None
    first = cache.commit(first, chain("12"))
    second = cache.commit(second, chain("12"))
    assert cache.used == 2
    cache.release(first)
    assert cache.used == 2
    cache.release(second)
    assert cache.used == 0
    assert cache.match(chain("12")) == 2


def test_evicts_the_tail_of_the_prefix_that_was_longest_unused() -> None:
    cache = BlockCache(6)
    for tokens in ("111", "222"):
        lease = cache.acquire([], 3)
        assert lease is not None
        cache.release(cache.commit(lease, chain(tokens)))
    assert cache.acquire([], 2) is not None
    assert cache.match(chain("111")) == 1
    assert cache.match(chain("222")) == 3


def play(cache: BlockCache, plan: Plan, running: list[tuple[Lease, list[int]]]) -> list[object]:
    """What the cache answers to requests that come and go."""
    seen: list[object] = []
    for (tokens, extra), victim, computed in plan:
        blocks = chain(tokens)
        lease = cache.acquire(blocks, len(blocks) + extra)
        if lease is not None:
            running.append((lease, blocks))
        if victim < len(running):
            lease, blocks = running.pop(victim)
            if computed:
                lease = cache.commit(lease, blocks[len(lease.pinned) :])
            cache.release(lease)
        seen.append((cache.used, cache.reused, lease, held(cache)))
    return seen


def held(cache: BlockCache) -> set[int]:
    return {block for block in every_block if cache.match([block])}


@given(steps, steps)
@settings(max_examples=100)
def test_a_trial_goes_as_the_cache_itself_then_goes_and_leaves_it_alone(before: Plan, then: Plan) -> None:
    cache = BlockCache(CAPACITY)
    running: list[tuple[Lease, list[int]]] = []
    play(cache, before, running)
    was = (cache.used, cache.reused, held(cache))
    tried = play(CacheTrial(cache), then, list(running))
    assert (cache.used, cache.reused, held(cache)) == was
    assert play(cache, then, running) == tried


@given(steps)
@settings(max_examples=100)
def test_who_listens_can_tell_at_all_times_what_is_held(plan: Plan) -> None:
    cache, twin = BlockCache(CAPACITY), set[int]()

    def hear(change: CacheChange) -> None:
        assert twin.isdisjoint(change.stored), "told twice"
        assert twin.issuperset(change.removed), "never told"
        twin.update(change.stored)
        twin.difference_update(change.removed)

    cache.tell = hear
    running: list[tuple[Lease, list[int]]] = []
    for step in plan:
        play(cache, [step], running)
        assert twin == held(cache)


def test_nobody_hears_of_a_trial() -> None:
    cache = BlockCache(2)
    changes: list[CacheChange] = []
    cache.tell = changes.append
    lease = cache.acquire([], 2)
    assert lease is not None
    cache.release(cache.commit(lease, chain("12")))
    assert CacheTrial(cache).acquire([], 2) is not None
    assert changes == [CacheChange(stored=chain("12"))]
