"""Small fleets, jobs and a policy that remembers, for tests of the simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.model import Endpoint, Hardware, Rate
from sim.capacity import PREFILL_OVERHEAD, Capacity
from sim.fleets import SimFleet
from sim.policy import Job, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.model import Load

RATE = Rate(prefill=1000.0, tpot=0.1)
BLOCK = 64


def small_fleet(endpoints: int = 1, kv_tokens: int = 64_000, max_requests: int = 256) -> SimFleet:
    size = Capacity(RATE, kv_tokens // 32, max_requests, gpu_bytes=0, overhead=PREFILL_OVERHEAD)
    members = tuple(
        Endpoint(f"10.0.0.{n + 1}:80", "m", "v", "p", Hardware("H100-80GB"), prior=RATE)
        for n in range(endpoints)
    )
    return SimFleet("small", members, (size,) * endpoints)


def job(
    id_: int, arrival: float, prompt: int, output: int = 1, *, content: object = None, session: str = ""
) -> Job:
    """A job whose prompt begins like that of every other with the same `content`."""
    name = id_ if content is None else content
    blocks = tuple(hash((name, n)) % 2**64 for n in range(prompt // BLOCK))
    return Job(id_, arrival, prompt, output, blocks, BLOCK, session)


@dataclass
class Recorder:
    """Places by a given rule, and remembers what it heard of which job, and when (in whole microseconds)."""

    rule: Callable[[Job], int | None] = lambda _: 0
    scrape_interval: float = 0.0
    feedback_delay: float = 0.0
    first_tokens: list[tuple[int, float, float]] = field(default_factory=list)
    ends: list[tuple[int, float, int | None]] = field(default_factory=list)
    scrapes: list[tuple[int, float, Load]] = field(default_factory=list)
    kv_tokens: Sequence[int] = ()

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        del endpoints, seed
        self.kv_tokens = kv_tokens

    def place(self, job: Job, now: float) -> int | Verdict | None:
        assert now == job.arrival
        return self.rule(job)

    def first_token(self, job: Job, now: float, at: float) -> None:
        self.first_tokens.append((job.id, round(now, 6), round(at, 6)))

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        self.ends.append((job.id, round(now, 6), cached_tokens))

    def scrape(self, index: int, load: Load, now: float) -> None:
        self.scrapes.append((index, now, load))


@dataclass
class Told(Recorder):
    """Hears of slowdowns, too."""

    slowdowns: list[tuple[int, float, float]] = field(default_factory=list)

    def slowed(self, index: int, factor: float, now: float) -> None:
        self.slowdowns.append((index, factor, now))


@dataclass
class Follower(Recorder):
    """Keeps a twin of every engine's cache from its events, and when each came."""

    twins: dict[int, set[int]] = field(default_factory=dict)
    heard: list[tuple[int, float, str, tuple[int, ...]]] = field(default_factory=list)

    def stored(self, index: int, blocks: Sequence[int], now: float) -> None:
        twin = self.twins.setdefault(index, set())
        assert twin.isdisjoint(blocks)
        twin.update(blocks)
        self.heard.append((index, round(now, 6), "stored", tuple(blocks)))

    def removed(self, index: int, blocks: Sequence[int], now: float) -> None:
        assert self.twins[index].issuperset(blocks)
        self.twins[index].difference_update(blocks)
        self.heard.append((index, round(now, 6), "removed", tuple(blocks)))
