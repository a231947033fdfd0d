"""What the routers share: who is where, what each endpoint still owes, and fair ties.

A policy decides in `choose` and says what it books for the request; this module keeps the books. Every
router here stands in the path of the answer, so it hears of first tokens and ends at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fleet.model import Endpoint, Load
    from sim.policy import Job

Cost = TypeVar("Cost", int, float, tuple[float, ...])


class Pick(NamedTuple):
    """A decision: an endpoint, by index, and the prompt tokens it is expected to compute."""

    endpoint: int
    prefill: int = 0


class Router(ABC):
    """Books of requests in flight around a decision. Indices are those of the endpoints at the start."""

    scrape_interval = 0.0
    feedback_delay = 0.0

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """Before the first request: empty books, and what the policy itself prepares."""
        self.rng = Random(seed)
        self.in_flight = [0] * len(endpoints)  # requests placed and not over
        self.prefill = [0] * len(endpoints)  # booked prompt tokens that await their first token
        self._placed: dict[int, Pick] = {}
        self._awaiting: set[int] = set()
        self.prepare(endpoints, kv_tokens)

    def place(self, job: Job, now: float) -> int | None:
        """The endpoint of `choose`, booked."""
        pick = self.choose(job, now)
        self.follow(job, pick, now)
        return pick.endpoint

    def placement(self, job: Job) -> Pick:
        """What another replica must hear of a request that was placed here."""
        return self._placed[job.id]

    def follow(self, job: Job, pick: Pick, now: float) -> None:
        """Book a request, wherever it was decided."""
        self._placed[job.id] = pick
        self._awaiting.add(job.id)
        self.in_flight[pick.endpoint] += 1
        self.prefill[pick.endpoint] += pick.prefill
        self.placed(job, pick.endpoint, now)

    def first_token(self, job: Job, now: float, at: float) -> None:  # noqa: ARG002 (heard as it happens)
        """The prompt is computed: its prefill is no longer owed."""
        if self._release_prefill(job):
            self.computed(job, self._placed[job.id].endpoint)

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:  # noqa: ARG002 (no peer learns)
        """The request is over; one that failed before its first token gives back all it had booked."""
        failed = self._release_prefill(job)
        pick = self._placed.pop(job.id, None)
        if pick is not None:
            self.in_flight[pick.endpoint] -= 1
            self.ended(job, pick.endpoint, failed)

    def scrape(self, index: int, load: Load, now: float) -> None:  # noqa: B027
        """Gauges: none are read unless a policy says so."""

    @abstractmethod
    def choose(self, job: Job, now: float) -> Pick:
        """Where the request goes."""

    # The hooks that follow are optional: a policy without such state leaves them empty.

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: B027
        """The policy's own state, before the first request."""

    def placed(self, job: Job, index: int, now: float) -> None:  # noqa: B027
        """The request was sent to `index`."""

    def computed(self, job: Job, index: int) -> None:  # noqa: B027
        """The endpoint has computed the prompt."""

    def ended(self, job: Job, index: int, failed: bool) -> None:  # noqa: B027
        """The request left `index`; `failed` where no first token came."""

    def lowest(self, costs: Sequence[Cost], among: Iterable[int] | None = None) -> int:
        """The index with the lowest cost, ties at random; `among` these indices or all."""
        indices = range(len(costs)) if among is None else list(among)
        least = min(costs[index] for index in indices)
        ties = [index for index in indices if costs[index] == least]
        return ties[0] if len(ties) == 1 else self.rng.choice(ties)

    def _release_prefill(self, job: Job) -> bool:
        """Whether the request still owed its prefill."""
        if job.id not in self._awaiting:
            return False
        self._awaiting.discard(job.id)
        pick = self._placed[job.id]
        self.prefill[pick.endpoint] -= pick.prefill
        return True
