"""An engine's future, played in private: when would a request get its first token?

Prompts are prefilled in order of arrival, so nothing that comes later moves a first token. A `Foresight`
therefore runs ahead of its engine, is told once of every request that the engine gets, and never has to look
at it again: it foresees exactly, the noise of a `SharedBudgetTiming` included, because it draws the same.

One thing is neglected: a request that arrives while the first in line waits for a slot or for KV space makes
the engine take its streams' contexts afresh. On the shared-budget engine that moves times a little.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sim.engine import Engine
from sim.kvcache import CacheTrial

if TYPE_CHECKING:
    from sim.engine import Request


class Foreseen(NamedTuple):
    """The sooner the better; of equals, the one with fewer streams beside."""

    first_token_at: float  # seconds, on the engine's clock
    streams: int  # that decode at that moment


class Foresight(Engine):
    """A copy of one engine, ahead of it by all that is queued there."""

    def __init__(self, engine: Engine) -> None:
        vars(self).update(deepcopy(vars(engine)))
        self._cache.tell = None  # who hears of the engine's cache hears of it from the engine
        self._run_ahead()

    def submit(self, request: Request, now: float) -> None:
        """The engine gets this request."""
        super().submit(request, now)
        self._run_ahead()

    def foresee(self, request: Request, now: float) -> Foreseen:
        """What would become of `request`, submitted now; nothing changes. Raises RequestTooLargeError."""
        return _Trial(self).first_token(request, now)

    def _run_ahead(self) -> None:
        """Until the last in line is being prefilled: only what comes behind it depends on who comes next."""
        while self._queue:
            self._step()
        self._events.clear()


class _Trial(Engine):
    """A copy made at once, good for as long as what it was made from stays as it is."""

    def __init__(self, engine: Engine) -> None:
        vars(self).update(vars(engine))
        self._cache = CacheTrial(self._cache)
        self._timing = copy(self._timing)
        self._queue = self._queue.copy()
        self._prefill = replace(self._prefill) if self._prefill is not None else None
        self._decoding = self._decoding.copy()
        self._ends = self._ends.copy()
        self._events = []

    def first_token(self, request: Request, now: float) -> Foreseen:
        self.submit(request, now)
        while not self._is_next(request.id):
            self._step()
        return Foreseen(self._prefill_ends_at, len(self._decoding))

    def _is_next(self, request_id: int) -> bool:
        """Whether the next thing to happen is this request's first token."""
        prefill = self._prefill
        if prefill is None or prefill.request.id != request_id:
            return False
        return self._prefill_ends_at <= self._decode_ends_at
