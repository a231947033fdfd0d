"""What the simulator asks of a routing policy, and all that it lets a policy know.

A policy sees a request as a router would: its prompt's length and block hashes, its session, the client's
output limit; never how long the answer will be or what an engine really holds. News comes as late as it
really does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.model import Endpoint, Load

END_NEWS_SECONDS = 0.1
"""An end is heard of within this: it closes the log entry, and entries wait a flush buffer's 50 ms and
their way to the router, not for the interval at which running requests are reported."""


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

    def place(self, job: Job, now: float) -> int | None:
        """The index of the endpoint the request goes to; None refuses it (which counts as a failure)."""

    def first_token(self, job: Job, now: float, at: float) -> None:
        """Heard at `now`: the request's first token came at `at`."""

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        """Heard at `now`: the request is over. `cached_tokens` where the engine told."""

    def scrape(self, index: int, load: Load, now: float) -> None:
        """One endpoint's gauges as they stand at `now`."""
