"""Memory and speed of the prefix index at scale.

    .venv/bin/python bench/index.py --blocks 1000000 --endpoints 100 --repeat 5

Fills an index with chains of 1,000 blocks, each chain at two endpoints, and prints one JSON object. Memory
is the growth of the process's resident set, the blocks' own integers included; times are in microseconds,
the least of the repeats unless the name or `reinserting` says otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.index import PrefixIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAIN_BLOCKS = 1_000
KNOWN_CHAINS = 20  # matched in turn: enough to leave the processor's caches
NEW_SEED, SHARED_SEED, EVICTING_SEED = 1 << 40, 1 << 41, 1 << 42  # chains that the filled index has not


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def chain(seed: int) -> list[int]:
    """A chain of random blocks; the same numbers, as new objects, whenever asked for again."""
    numbers = random.Random(seed)
    return [numbers.getrandbits(64) for _ in range(CHAIN_BLOCKS)]


def homes(seed: int, addresses: list[str]) -> Iterator[str]:
    """The two endpoints of a chain; every pair comes up about as often as any other."""
    count = len(addresses)
    first = seed % count
    yield addresses[first]
    yield addresses[(first + 1 + seed // count % (count - 1)) % count]


def filled(blocks: int, addresses: list[str]) -> PrefixIndex:
    """An index of `blocks` blocks, each at two of `addresses`, with room for one chain more in each."""
    chains = blocks // CHAIN_BLOCKS
    index = PrefixIndex(addresses, 4 * blocks // len(addresses) + CHAIN_BLOCKS)
    for seed in range(chains):
        for address in homes(seed, addresses):
            index.insert(address, chain(seed))
    return index


def least_us(repeat: int, work: Callable[[int], object]) -> float:
    """The least time that `work` took, called with 0, 1, 2, …"""
    taken = []
    for n in range(repeat):
        started = time.perf_counter()
        work(n)
        taken.append(time.perf_counter() - started)
    return round(min(taken) * 1e6, 1)


def measure(blocks: int, endpoints: int, repeat: int) -> dict[str, float]:
    """All figures, from one index."""
    addresses = [f"10.0.{n // 256}.{n % 256}:8000" for n in range(endpoints)]
    before = resident_bytes()
    index = filled(blocks, addresses)
    gc.collect()
    figures: dict[str, float] = {"blocks": len(index), "endpoints": endpoints}
    figures["memory_mb"] = round((resident_bytes() - before) / 1e6, 1)

    known = [chain(seed) for seed in range(min(KNOWN_CHAINS, blocks // CHAIN_BLOCKS))]
    new = [chain(NEW_SEED + n) for n in range(repeat)]
    shared = chain(SHARED_SEED)

    def match_known(_: int) -> None:
        for blocks_asked in known:
            index.match(blocks_asked, addresses)

    figures["match_1000_us"] = round(least_us(repeat, match_known) / len(known), 1)
    own = [chain(seed) for seed in range(0, blocks // CHAIN_BLOCKS, endpoints)]
    figures |= reinserting(index, addresses[0], own)
    figures["insert_1000_new_us"] = least_us(repeat, lambda n: index.insert(addresses[0], new[n]))
    for address in addresses:
        index.insert(address, shared)
    figures["match_1000_held_by_all_us"] = least_us(repeat, lambda _: index.match(shared, addresses))
    figures["evicting_insert_us_per_block"] = evicting(index, addresses[0], repeat)
    return figures


def reinserting(index: PrefixIndex, address: str, chains: list[list[int]]) -> dict[str, float]:
    """Mean and longest time to insert a chain that is held, over enough uses for two clean-ups or more."""
    taken = []
    for _ in range(1 + 3 * index.holds(address) // (CHAIN_BLOCKS * len(chains))):
        for blocks in chains:
            started = time.perf_counter()
            index.insert(address, blocks)
            taken.append(time.perf_counter() - started)
    return {
        "insert_1000_known_us": round(statistics.mean(taken) * 1e6, 1),
        "insert_1000_known_longest_us": round(max(taken) * 1e6, 1),
    }


def evicting(index: PrefixIndex, address: str, repeat: int) -> float:
    """Time to insert a new block into a full endpoint, and so to evict one."""
    index.resize(address, index.holds(address))
    fresh = [chain(EVICTING_SEED + n) for n in range(repeat)]
    return round(least_us(repeat, lambda n: index.insert(address, fresh[n])) / CHAIN_BLOCKS, 3)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000, help="distinct, each at two endpoints")
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.blocks, asked.endpoints, asked.repeat), indent=2))


if __name__ == "__main__":
    main()
