"""Several replicas of one router, which hear of each other's placements and news a little later.

Each request is decided by one of them, drawn by chance as a gateway's connections would. That one books it
at once, the others after `lag`; what the engines report reaches all alike. Metrics are scraped once for all.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sim.policy import HearsOfCaches, HoldsRequests, Policy, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.model import Endpoint, Load
    from sim.policy import Job


class Replica(Policy, Protocol):
    """A router that can follow what another of its kind has decided."""

    def placement(self, job: Job) -> Any:
        """What the others must hear of a request that was placed here."""

    def follow(self, job: Job, placement: Any, now: float) -> None:
        """Book a request that was placed elsewhere."""


@runtime_checkable
class TellsOfHeld(Protocol):
    """A router whose replicas hear whom the others hold."""

    def take_news(self) -> Sequence[Any]:
        """What the others must hear, since this was asked last."""

    def hear(self, event: Any, now: float) -> None:
        """What another one said."""


class Replicas:
    """`routers`, of one kind; `lag` in seconds."""

    def __init__(self, routers: Sequence[Replica], lag: float) -> None:
        self.scrape_interval = routers[0].scrape_interval
        self.feedback_delay = routers[0].feedback_delay
        self._routers = routers
        holding = [router for router in routers if isinstance(router, HoldsRequests)]
        self.dispatch_interval = min((router.dispatch_interval for router in holding), default=0.0)
        self._lag = lag
        self._owner: dict[int, Replica] = {}  # by job: who decided it
        self._late: deque[tuple[float, Callable[[float], None]]] = deque()  # by when it is heard

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """All know the same fleet."""
        self._random = Random(seed)
        self._late.clear()
        for router in self._routers:
            router.start(endpoints, kv_tokens, seed)

    def place(self, job: Job, now: float) -> int | Verdict | None:
        """Decided by one replica; the others hear of it later."""
        self._catch_up(now)
        router = self._random.choice(self._routers)
        index = router.place(job, now)
        if isinstance(index, int):
            self._publish(router, job, now)
        self._tell_of_held(router, now)
        return index

    def dispatch(self, now: float) -> list[tuple[Job, int | None]]:
        """What any of them held, and lets go now."""
        self._catch_up(now)
        sent: list[tuple[Job, int | None]] = []
        for router in self._routers:
            if isinstance(router, HoldsRequests):
                for job, index in router.dispatch(now):
                    if index is not None:
                        self._publish(router, job, now)
                    sent.append((job, index))
                self._tell_of_held(router, now)
        return sent

    def first_token(self, job: Job, now: float, at: float) -> None:
        """Heard by the replica that decided, and later by the others."""
        self._catch_up(now)
        owner = self._owner[job.id]
        owner.first_token(job, now, at)
        self._tell(owner, now, lambda other, heard: other.first_token(job, heard, at))

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        """Heard by the replica that decided, and later by the others."""
        self._catch_up(now)
        owner = self._owner.pop(job.id)
        owner.finish(job, now, cached_tokens)
        self._tell(owner, now, lambda other, heard: other.finish(job, heard, cached_tokens))

    def scrape(self, index: int, load: Load, now: float) -> None:
        """All read the same store."""
        self._catch_up(now)
        for router in self._routers:
            router.scrape(index, load, now)

    def stored(self, index: int, blocks: Sequence[int], now: float) -> None:
        """All hear of the engines' caches."""
        for router in self._routers:
            if isinstance(router, HearsOfCaches):
                router.stored(index, blocks, now)

    def removed(self, index: int, blocks: Sequence[int], now: float) -> None:
        """All hear of the engines' caches."""
        for router in self._routers:
            if isinstance(router, HearsOfCaches):
                router.removed(index, blocks, now)

    def _publish(self, router: Replica, job: Job, now: float) -> None:
        self._owner[job.id] = router
        placement = router.placement(job)
        self._tell(router, now, lambda other, at: other.follow(job, placement, at))

    def _tell_of_held(self, router: Replica, now: float) -> None:
        if isinstance(router, TellsOfHeld):
            for event in router.take_news():
                self._tell(router, now, partial(_hear, event))

    def _tell(self, owner: Replica, now: float, news: Callable[[Replica, float], None]) -> None:
        for router in self._routers:
            if router is not owner:
                self._late.append((now + self._lag, partial(news, router)))

    def _catch_up(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            at, hear = self._late.popleft()
            hear(at)


def _hear(event: Any, other: Any, now: float) -> None:
    other.hear(event, now)
