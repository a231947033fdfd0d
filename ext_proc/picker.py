"""The picker's core: requests, news and `now` in; an ordered list of endpoints out.

No clock, no I/O, deterministic for a seed.
Greedy: the endpoint with the lowest predicted time to first token wins, the next ones are for retries.
"""

from __future__ import annotations

import hashlib
import random
from operator import attrgetter
from typing import TYPE_CHECKING

from ext_proc.decision import Decision
from ext_proc.endpoint import EndpointState
from ext_proc.placement import Placement
from ext_proc.predict import predict
from ext_proc.session import SessionTable
from fleet.index import PrefixIndex
from fleet.rates import FirstToken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ext_proc.predict import Prediction
    from ext_proc.request import RoutingRequest
    from fleet.model import Endpoint, Load, Rate, Traffic
    from fleet.settings import PickerSettings

TIE_SECONDS = 0.0005
"""Predictions closer than this are equal: the request's hop through Envoy varies by more."""


class Picker:
    """Places requests on endpoints and learns from what becomes of them."""

    def __init__(
        self,
        settings: PickerSettings,
        endpoints: Iterable[Endpoint],
        seed: int = 0,
        *,
        news_delay: float = 0.6,
        stale_after: float = 10.0,
    ) -> None:
        """`seed` draws among equals and makes ids. Seconds: a first token is heard of within `news_delay`;
        a scrape older than `stale_after` says nothing any more."""
        self._settings = settings
        self._endpoints = {e.address: EndpointState(e, news_delay, stale_after) for e in endpoints}
        self._index = PrefixIndex(
            self._endpoints, int(settings.default_kv_tokens / settings.tokens_per_block)
        )
        self._sessions = SessionTable(settings.sessions_max)
        self._placements: dict[str, Placement] = {}
        self._random = random.Random(seed)
        self._id_key = seed.to_bytes(32, "little", signed=True)
        self._picks = 0

    @property
    def in_flight(self) -> int:
        """Requests placed and not over yet."""
        return len(self._placements)

    @property
    def known_blocks(self) -> int:
        """Distinct prefix blocks that some endpoint is believed to hold."""
        return len(self._index)

    def pick(self, request: RoutingRequest, now: float) -> Decision | None:
        """The best endpoints among the request's candidates; None if none of them is known."""
        states = self._usable(request.candidates, now)
        if not states:
            return None
        predictions = self._predictions(request, states, now)
        self._break_tie(predictions, request)
        best = predictions[0]
        chosen = tuple(p.address for p in predictions[: self._settings.endpoints_per_pick])
        id_ = self._next_id()
        self._place(id_, request, chosen, best, now)
        return Decision(id_, chosen, best.ttft, best.matched_tokens, tuple(predictions))

    def placed_at(self, id_: str) -> float | None:
        """When the outstanding request `id_` was placed; None if there is no such request."""
        placement = self._placements.get(id_)
        return None if placement is None else placement.placed_at

    def running(self, id_: str, now: float, *, endpoint: str = "", attempts: int = 1) -> bool:
        """The log speaks of the request: it is at `endpoint` ('' where it does not say), in that attempt.

        False if no such request is outstanding.
        """
        placement = self._placements.get(id_)
        if placement is None:
            return False
        placement.heard_at = now
        placement.learnable &= attempts <= 1
        self._follow(id_, placement, endpoint, attempts, now)
        return True

    def cancel(self, id_: str, now: float) -> None:
        """Nobody heard of the decision: the request will not come."""
        placement = self._placements.pop(id_, None)
        if placement is not None:
            self._release(id_, placement, now)
            self._disbelieve(placement)

    def first_token(self, id_: str, at: float) -> bool:
        """The request's first token came at `at`. False if no such request is outstanding."""
        placement = self._placements.get(id_)
        if placement is None:
            return False
        # An answer that is not streamed comes whole: its first byte says nothing about prefill.
        if placement.first_token is None and placement.request.streamed:
            state = placement.state
            state.ledger.first_token(id_, at)
            state.health.succeeded(placement.placed_at)
            placement.first_token = FirstToken(
                at, placement.placed_at, placement.decodes, placement.learnable
            )
            state.rates.observe(placement.first_token)
            state.traffic.first_token(at - placement.placed_at)
        return True

    def finish(
        self,
        id_: str,
        now: float,
        *,
        endpoint: str = "",
        failed: bool = False,
        answered: bool = True,
        decode_seconds: float | None = None,
        output_tokens: int | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> bool:
        """The request is over; `endpoint` served it, or failed to ('' where nobody did).

        Neither failed nor `answered`: the client left, or the engine refused the request; that says nothing
        of the endpoint. Token counts are the engine's own, where it told, `decode_seconds` the time from
        first to last token. False if no such request is outstanding: then nothing is believed of it.
        """
        placement = self._placements.pop(id_, None)
        if placement is None:
            return False
        self._follow(id_, placement, endpoint, 1, now)
        self._release(id_, placement, now)
        if failed:
            self._failed(endpoint, now)
        if failed or (not answered and placement.first_token is None):
            self._disbelieve(placement)
        elif answered and endpoint in self._endpoints:
            placement.state.health.succeeded(placement.placed_at)
            self._learn(placement, placement.cached(prompt_tokens, cached_tokens))
            if decode_seconds is not None and output_tokens:
                placement.state.rates.observe_decode(decode_seconds, output_tokens - 1)
        return True

    def observe(self, address: str, load: Load, now: float) -> None:
        """One scrape of an endpoint."""
        state = self._endpoints.get(address)
        if state is None:
            return
        if not load.ready and (state.load is None or state.load.ready):
            self._index.clear(address)  # whatever comes back has an empty cache
        state.observe(load, now)
        if load.kv_tokens:
            self._index.resize(address, int(load.kv_tokens / self._settings.tokens_per_block))

    def expire(self, now: float) -> int:
        """Give up requests that the log no longer speaks of, and idle sessions; how many requests."""
        silent = [
            id_
            for id_, placement in self._placements.items()
            if placement.heard_at <= now - self._settings.silence_seconds
        ]
        for id_ in silent:
            self.cancel(id_, now)
        self._sessions.expire(now - self._settings.session_ttl_seconds)
        for state in self._endpoints.values():
            state.rates.settle(now)
        return len(silent)

    def traffic(self, at: float) -> dict[str, Traffic]:
        """What was seen of each endpoint lately; `at` is the Unix time to put on it."""
        return {address: state.record(at) for address, state in self._endpoints.items()}

    def rates(self, at: float) -> dict[str, Rate]:
        """What was learned of each endpoint that answered anything; `at` is the Unix time to put on it."""
        return {a: s.rates.rate(at) for a, s in self._endpoints.items() if s.rates.observations}

    def _usable(self, candidates: Sequence[str], now: float) -> list[EndpointState]:
        known = [self._endpoints[address] for address in candidates if address in self._endpoints]
        return [state for state in known if state.usable(now)] or known

    def _predictions(
        self, request: RoutingRequest, states: Sequence[EndpointState], now: float
    ) -> list[Prediction]:
        matched = self._index.match(request.blocks, [state.endpoint.address for state in states])
        predictions = []
        for state in states:
            state.rates.settle(now)
            tokens = request.tokens_of(matched.get(state.endpoint.address, 0)) * state.trust
            predictions.append(
                predict(state, request.prompt_tokens, tokens, request.expected_output_tokens, now)
            )
        predictions.sort(key=attrgetter("ttft"))
        return predictions

    def _break_tie(self, predictions: list[Prediction], request: RoutingRequest) -> None:
        """Among equals the session's endpoint goes first, else one at random."""
        limit = predictions[0].ttft + TIE_SECONDS
        equals = [p for p in predictions if p.ttft <= limit]
        if len(equals) == 1:
            return
        home = self._sessions.home(request.session)
        first = next((p for p in equals if p.address == home), None) or self._random.choice(equals)
        predictions.remove(first)
        predictions.insert(0, first)

    def _place(
        self, id_: str, request: RoutingRequest, chosen: tuple[str, ...], best: Prediction, now: float
    ) -> None:
        state = self._endpoints[best.address]
        learnable = all(prefill.observable for prefill in state.ledger.prefills.values())
        self._placements[id_] = Placement(
            request=request,
            state=state,
            endpoints=chosen,
            placed_at=now,
            heard_at=now,
            matched_tokens=best.matched_tokens,
            uncached_tokens=best.uncached_tokens,
            learnable=learnable,
            decodes=len(state.ledger.decodes),
            inserted=self._index.insert(best.address, request.blocks),
        )
        state.ledger.place(id_, best.uncached_tokens, now, observable=request.streamed)
        state.health.picked(now)
        self._sessions.remember(request.session, best.address, now)

    def _follow(self, id_: str, placement: Placement, endpoint: str, attempts: int, now: float) -> None:
        """If Envoy is at another endpoint now, move there; those that it stepped over have failed.

        Envoy walks the list in order and then turns to its own balancer; in a first attempt it does so only
        where it did not take the list at all, and then nobody failed.
        """
        state = self._endpoints.get(endpoint)
        if state is None or state is placement.state:
            return
        listed = placement.endpoints
        stepped_over = listed.index(endpoint) if endpoint in listed else attempts - 1
        for address in listed[:stepped_over]:
            self._failed(address, now)
        self._release(id_, placement, now)
        self._disbelieve(placement)
        request = placement.request
        placement.state, placement.learnable = state, False
        placement.endpoints = (endpoint, *(a for a in listed[stepped_over:] if a != endpoint))
        held = self._index.match(request.blocks, (endpoint,)).get(endpoint, 0)
        placement.matched_tokens = request.tokens_of(held) * state.trust
        placement.uncached_tokens = request.prompt_tokens - placement.matched_tokens
        state.ledger.place(id_, placement.uncached_tokens, now, observable=request.streamed)
        placement.inserted = self._index.insert(endpoint, request.blocks)
        self._sessions.remember(request.session, endpoint, now)

    def _release(self, id_: str, placement: Placement, now: float) -> None:
        """The request owes its endpoint nothing more.

        If it never began to answer, nobody knows how long the endpoint was busy with it, so those that wait
        there now teach nothing.
        """
        ledger = placement.state.ledger
        if id_ in ledger.prefills:
            for waiting in ledger.prefills:
                self._unlearnable(waiting)
        ledger.release(id_, now)

    def _unlearnable(self, id_: str) -> None:
        if id_ in self._placements:
            self._placements[id_].learnable = False

    def _disbelieve(self, placement: Placement) -> None:
        """The request's prompt was not computed after all."""
        self._index.remove(placement.state.endpoint.address, placement.inserted)
        placement.inserted = []

    def _failed(self, address: str, now: float) -> None:
        state = self._endpoints.get(address)
        if state is not None and state.health.failed(now):
            self._index.clear(address)  # a pod that went away comes back with an empty cache

    def _learn(self, placement: Placement, cached: float | None) -> None:
        """The request was answered, `cached` of its prompt tokens from the cache; None where nobody knows."""
        state, prompt_tokens = placement.state, placement.request.prompt_tokens
        if cached is not None:
            state.confirm_match(placement.matched_tokens, cached)
        matched = placement.matched_tokens if cached is None else cached
        state.traffic.answered(prompt_tokens, matched)
        if placement.first_token is not None:
            state.rates.confirm(placement.first_token, max(0.0, prompt_tokens - matched))

    def _next_id(self) -> str:
        """Unguessable without the seed, the same for the same seed."""
        self._picks += 1
        return hashlib.blake2b(
            self._picks.to_bytes(8, "little"), key=self._id_key, digest_size=16
        ).hexdigest()
