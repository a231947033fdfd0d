"""Requests that were placed and are not over: where each is, and what the news of it teaches.

Placing a request books its work, its blocks and its session at an endpoint; news moves it, or ends it, and
every end undoes exactly what was booked and not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.placement import Placement
from ext_proc.predict import predict
from fleet.rates import FirstToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ext_proc.endpoint import EndpointState
    from ext_proc.events import Began, Ended, Placed, Standing
    from ext_proc.outcome import Outcome
    from ext_proc.outputs import OutputHistory
    from ext_proc.request import RoutingRequest
    from ext_proc.session import SessionTable
    from fleet.index import PrefixIndex


class InFlight:
    """The book of placements over the picker's endpoints, index, sessions and output history."""

    def __init__(
        self,
        endpoints: Mapping[str, EndpointState],
        index: PrefixIndex,
        sessions: SessionTable,
        outputs: OutputHistory,
    ) -> None:
        self._endpoints = endpoints
        self._index = index
        self._sessions = sessions
        self._outputs = outputs
        self._placements: dict[str, Placement] = {}
        self.observer: Callable[[Outcome], None] | None = None
        """Hears how each request ended that was decided here."""

    def __len__(self) -> int:
        """Requests placed and not over."""
        return len(self._placements)

    def __contains__(self, id_: object) -> bool:
        """Whether the request is outstanding."""
        return id_ in self._placements

    def placed_at(self, id_: str) -> float | None:
        """When the outstanding request `id_` was placed; None if there is no such request."""
        placement = self._placements.get(id_)
        return None if placement is None else placement.placed_at

    def address(self, id_: str) -> str:
        """Where the outstanding request `id_` is; '' if there is no such request."""
        placement = self._placements.get(id_)
        return "" if placement is None else placement.state.endpoint.address

    def awaits_first_token(self, id_: str) -> bool:
        """Whether a first token of the request would be news."""
        placement = self._placements.get(id_)
        return placement is not None and placement.first_token is None and placement.request.streamed

    def worth_telling(self, id_: str, endpoint: str, attempts: int, now: float, often: float) -> bool:
        """Whether the others should hear that the request is at `endpoint`, in that attempt.

        They should if it moved, and every `often` seconds: else they, and who placed it, believe it lost.
        """
        placement = self._placements.get(id_)
        if placement is None:
            return False
        moved = endpoint in self._endpoints and endpoint != placement.state.endpoint.address
        if not moved and not (placement.learnable and attempts > 1) and now < placement.told_at + often:
            return False
        placement.told_at = now
        return True

    def outstanding(self, replica: str | None = None) -> list[Placed | Began]:
        """Requests under way, as another replica has to hear of them; of one replica, or of all."""
        told: list[Placed | Began] = []
        for placement in self._placements.values():
            if replica is None or placement.replica == replica:
                told += placement.as_told()
        return told

    def of_replica(self, replica: str) -> list[str]:
        """Ids of the requests under way that `replica` placed."""
        return [id_ for id_, placement in self._placements.items() if placement.replica == replica]

    def keep_only(self, standing: Standing, now: float) -> None:
        """A replica said what is outstanding of its placements on one model: the others there are over."""
        for id_ in set(self.of_replica(standing.replica)).difference(standing.ids):
            if self._placements[id_].state.endpoint.model == standing.model:
                self.cancel(id_, now)

    def silent_since(self, at: float, long_ago: float, present: Callable[[str], bool]) -> list[str]:
        """Requests that nothing was heard of since `at`.

        Of another replica's only that one hears, and will say when they end, as long as it is `present`; but
        news can be lost, so they are given up too where nothing was heard since `long_ago`.
        """
        return [
            id_
            for id_, placement in self._placements.items()
            if placement.heard_at <= (long_ago if present(placement.replica) else at)
        ]

    def place(self, placed: Placed, now: float, predicted_ttft: float | None = None) -> None:
        """A request is on its way to the first of its endpoints, which is one of ours.

        Where it was decided here, its first token was predicted to come after `predicted_ttft` seconds.
        """
        request, address = placed.request, placed.endpoints[0]
        state = self._endpoints[address]
        learnable = state.ledger.unobservable == 0
        self._placements[placed.id] = Placement(
            request=request,
            state=state,
            endpoints=placed.endpoints,
            placed_at=placed.at,
            sent_at=placed.at,
            heard_at=now,
            believed_tokens=placed.believed_tokens,
            matched_tokens=placed.matched_tokens,
            uncached_tokens=placed.uncached_tokens,
            learnable=learnable,
            decodes=len(state.ledger.decodes),
            inserted=self._index.insert(address, request.blocks),
            replica=placed.replica,
            predicted_ttft=predicted_ttft or 0.0,
            picked="" if predicted_ttft is None else address,
            placed=placed,
            told_at=now,
        )
        state.ledger.place(
            placed.id,
            placed.work,
            placed.at,
            observable=request.streamed,
            kv_tokens=self._kv_tokens(request, placed.uncached_tokens),
        )
        state.demand.placed(placed.work, placed.prefill, now, now - placed.at)
        state.residency.placed(request.lora)
        state.health.picked(now)
        state.changed()
        self._sessions.remember(request.session, address, now)

    def running(self, id_: str, now: float, endpoint: str, attempts: int) -> bool:
        """The log speaks of the request: it is at `endpoint` ('' where it does not say), in that attempt."""
        placement = self._placements.get(id_)
        if placement is None:
            return False
        placement.heard_at = now
        placement.learnable &= attempts <= 1
        placement.attempts = max(placement.attempts, attempts)
        self._follow(id_, placement, endpoint, attempts, now)
        return True

    def cancel(self, id_: str, now: float) -> None:
        """Nobody heard of the decision: the request will not come."""
        placement = self._placements.pop(id_, None)
        if placement is not None:
            self._release(id_, placement, now)
            if placement.first_token is None:
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
                at,
                placement.sent_at,
                placement.uncached_tokens,
                placement.matched_tokens,
                placement.decodes,
                placement.learnable,
            )
            state.rates.observe(placement.first_token)
            state.traffic.first_token(at - placement.sent_at)
            state.changed()
        return True

    def finish(self, ended: Ended) -> bool:
        """The request is over. False if no such request is outstanding: then nothing is believed of it."""
        placement = self._placements.pop(ended.id, None)
        if placement is None:
            return False
        self._follow(ended.id, placement, ended.endpoint, 1, ended.at)
        self._release(ended.id, placement, ended.at)
        if self.observer is not None and placement.picked:
            self.observer(placement.outcome(ended))
        if ended.failed:
            self._failed(ended.endpoint, ended.at)
        if ended.answered and not ended.failed:
            if ended.endpoint in self._endpoints:
                self._learn(placement, ended)
            return True
        self._unlearn(placement)
        if ended.failed or placement.first_token is None:
            self._disbelieve(placement)
        return True

    def _follow(self, id_: str, placement: Placement, endpoint: str, attempts: int, now: float) -> None:
        """If Envoy is at another endpoint now, move there; those that it stepped over have failed.

        Envoy walks the list in order and then turns to its own balancer; in a first attempt it does so only
        where it did not take the list at all, and then nobody failed.
        """
        state = self._endpoints.get(endpoint)
        if state is None or state is placement.state:
            return
        listed = placement.endpoints
        stepped_over = listed.index(endpoint) if endpoint in listed else max(0, attempts - 1)
        for address in listed[:stepped_over]:
            self._failed(address, now)
        self._release(id_, placement, now)
        self._disbelieve(placement)
        self._unlearn(placement)
        self._move(id_, placement, state, now)
        placement.endpoints = (endpoint, *(a for a in listed[stepped_over:] if a != endpoint))

    def _move(self, id_: str, placement: Placement, state: EndpointState, now: float) -> None:
        request, address = placement.request, state.endpoint.address
        placement.state, placement.learnable, placement.first_token = state, False, None
        placement.sent_at, placement.decodes = now, len(state.ledger.decodes)
        blocks = self._index.match(request.blocks, (address,)).get(address, 0)
        found = predict(state, request, blocks, 0.0, now)
        placement.believed_tokens = found.believed_tokens
        placement.matched_tokens = found.matched_tokens
        placement.uncached_tokens = found.uncached_tokens
        kv_tokens = self._kv_tokens(request, found.uncached_tokens)
        state.ledger.place(id_, found.work, now, observable=request.streamed, kv_tokens=kv_tokens)
        state.residency.placed(request.lora)
        state.changed()
        placement.inserted = self._index.insert(address, request.blocks)
        self._sessions.remember(request.session, address, now)

    def _kv_tokens(self, request: RoutingRequest, uncached: float) -> float:
        """What it adds to the KV cache: cached blocks are there already, and may be shared."""
        return uncached + self._outputs.expected(request.kind, request.output_limit)

    def _release(self, id_: str, placement: Placement, now: float) -> None:
        """The request owes its endpoint nothing more.

        If it never began to answer, nobody knows how long the endpoint was busy with it, so those that wait
        there now teach nothing.
        """
        ledger = placement.state.ledger
        if id_ in ledger.prefills:
            for waiting in ledger.prefills:
                if waiting in self._placements:
                    self._placements[waiting].learnable = False
        ledger.release(id_, now)
        placement.state.changed()

    def _disbelieve(self, placement: Placement) -> None:
        """The request's prompt was not computed after all."""
        self._index.remove(placement.state.endpoint.address, placement.inserted)
        placement.inserted = []

    def _unlearn(self, placement: Placement) -> None:
        """The first token was none of an answer: an error's page, or an answer that broke off."""
        if placement.first_token is not None:
            placement.state.rates.revoke(placement.first_token)

    def _failed(self, address: str, now: float) -> None:
        state = self._endpoints.get(address)
        if state is not None and state.health.failed(now):
            self._index.clear(address)  # a pod that went away comes back with an empty cache
            state.residency.restarted()

    def _learn(self, placement: Placement, ended: Ended) -> None:
        """The request was answered: what that says of the endpoint, and of requests like it."""
        state, request = placement.state, placement.request
        state.health.succeeded(placement.placed_at)
        cached = placement.cached(ended.prompt_tokens, ended.cached_tokens)
        if cached is not None:
            state.confirm_match(placement.believed_tokens, cached)
            state.changed()
        matched = placement.matched_tokens if cached is None else cached
        state.traffic.answered(request.prompt_tokens, matched)
        first = placement.first_token
        if first is not None:
            state.rates.confirm(first, max(0.0, request.prompt_tokens - matched), matched)
        if ended.output_tokens:
            self._outputs.observe(request.kind, ended.output_tokens)
            if ended.decode_seconds is not None:
                settled = first is not None and first.busy is not None
                beside = state.rates.busy_seconds - first.busy_before if first and settled else None
                state.decoding.observe(ended.decode_seconds, ended.output_tokens - 1, beside)
