"""What the simulator asks of a routing policy, and all that it lets a policy know.

A policy sees a request as a router would: its prompt's length and block hashes, its session, the client's
output limit; never how long the answer will be or what an engine really holds. News comes as late as it
really does. What else a policy can have is a protocol of its own: it gets that because it has the methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.model import Endpoint, Load
    from sim.engine import Engine, Request

END_NEWS_SECONDS = 0.1
"""An end is heard of within this: it closes the log entry, and entries wait a flush buffer's 50 ms and
their way to the router, not for the interval at which running requests are reported."""

KV_NEWS_SECONDS = 0.05
"""A change of an engine's cache is heard of after this: engines collect KV events for an iteration or two
(tens of milliseconds) before they publish them, or a router polls them as often."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request of a workload. `blocks` are chained hashes of whole blocks of `block_tokens` tokens."""

    id: int
    arrival: float  # seconds from the start
    prompt_tokens: int
    output_tokens: int  # what the engine will generate; no policy may look at it
    blocks: Sequence[int]
    block_tokens: int
    session: str = ""
    workload_class: str = ""  # interactive, batch, long; '' where nobody says
    output_limit: int | None = None  # what the client asked for at most


class Verdict(Enum):
    """What a policy may say of a request instead of where it goes."""

    HELD = "held"
    """It waits in the router, which `HoldsRequests`."""


class Policy(Protocol):
    """One router. Deterministic for its seed; times are seconds of virtual time."""

    scrape_interval: float
    """Seconds between two scrapes of an endpoint; 0 where the policy reads no metrics."""

    feedback_delay: float
    """Seconds until a first token or an end is heard of; 0 for a router in the path of the answer.

    An end, with the first token if that was not told yet, is told after END_NEWS_SECONDS at most.
    """

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """Before the first request: the fleet, and each endpoint's KV capacity in tokens."""

    def place(self, job: Job, now: float) -> int | Verdict | None:
        """The index of the endpoint the request goes to; None refuses it (which counts as a failure)."""

    def first_token(self, job: Job, now: float, at: float) -> None:
        """Heard at `now`: the request's first token came at `at`."""

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        """Heard at `now`: the request is over. `cached_tokens` where the engine told."""

    def scrape(self, index: int, load: Load, now: float) -> None:
        """One endpoint's gauges as they stand at `now`."""


@runtime_checkable
class HoldsRequests(Protocol):
    """A policy that decides some requests later than they arrive, as a gateway with a queue does."""

    dispatch_interval: float
    """Seconds between two calls of `dispatch` while requests are held."""

    def dispatch(self, now: float) -> list[tuple[Job, int | None]]:
        """Held requests that go now, and where; None refuses one."""


@runtime_checkable
class HearsOfSlowdowns(Protocol):
    """What a policy may have besides: it is told at once, as no router is, to measure what that is worth."""

    def slowed(self, index: int, factor: float, now: float) -> None:
        """From `now` on the endpoint prefills and decodes at `factor` of its full rate."""


@runtime_checkable
class HearsOfCaches(Protocol):
    """A policy that follows the engines' KV events, where they have any: exact, KV_NEWS_SECONDS late."""

    def stored(self, index: int, blocks: Sequence[int], now: float) -> None:
        """The endpoint holds these blocks, which it did not; prefix first. Told once of a block."""

    def removed(self, index: int, blocks: Sequence[int], now: float) -> None:
        """The endpoint evicted these blocks."""


@runtime_checkable
class SeesEngines(Protocol):
    """A policy that knows what no router can: a yardstick."""

    def see(self, engines: Sequence[Engine], request_of: Callable[[Job], Request]) -> None:
        """Before the first request: the engines themselves, by endpoint, and what they will get of a job.

        They are to be looked at only. The request tells the true length of its answer.
        """
