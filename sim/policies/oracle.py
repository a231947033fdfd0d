"""Full knowledge, used greedily: what a router could gain by knowing more.

It knows each engine's queue, cache, streams and speed as they are now, how long every answer will be, and
what the engine's noise will do; it hears of nothing late. Each request goes to the endpoint where its own
first token comes first, which nobody who comes later can change; of equals, to the one with the fewest
streams. See `sim.foresight` for the one thing that is not exact.

It bounds greedy routing, not routing: it never pays a little itself to spare those behind it a recomputed
prefix or a longer queue, nor looks at who comes next, so a cleverer policy that knows less may beat it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine import RequestTooLargeError
from sim.foresight import Foresight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.model import Endpoint, Load
    from sim.engine import Engine, Request
    from sim.foresight import Foreseen
    from sim.policy import Job


class Oracle:
    """The greedy bound, a policy that is `SeesEngines` and `HearsOfSlowdowns`. Draws nothing."""

    def __init__(self) -> None:
        self.scrape_interval = 0.0
        self.feedback_delay = 0.0

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """Nothing to learn here that the engines do not show."""

    def see(self, engines: Sequence[Engine], request_of: Callable[[Job], Request]) -> None:
        """Begin to run ahead of them."""
        self._engines = engines
        self._request_of = request_of
        self._ahead = [Foresight(engine) for engine in engines]

    def slowed(self, index: int, factor: float, now: float) -> None:  # noqa: ARG002 (the engine shows it)
        """What was foreseen of this one is void."""
        self._ahead[index] = Foresight(self._engines[index])

    def place(self, job: Job, now: float) -> int | None:
        """The endpoint of its earliest first token; None where it fits nowhere."""
        request = self._request_of(job)
        foreseen: list[tuple[Foreseen, int]] = []
        for index, ahead in enumerate(self._ahead):
            try:
                foreseen.append((ahead.foresee(request, now), index))
            except RequestTooLargeError:
                continue
        if not foreseen:
            return None
        _, best = min(foreseen)
        self._ahead[best].submit(request, now)
        return best

    def first_token(self, job: Job, now: float, at: float) -> None:
        """Foreseen."""

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        """Foreseen."""

    def scrape(self, index: int, load: Load, now: float) -> None:
        """Never asked for."""
