"""The picker's core: requests, news and `now` in; an ordered list of endpoints out.

No clock, no I/O, deterministic for a seed. The endpoint with the lowest cost wins: the predicted time to
first token and what the placement does to others (`price`); the next ones are for retries.
"""

from __future__ import annotations

import random
from types import MappingProxyType
from typing import TYPE_CHECKING

from ext_proc.appraise import Appraiser
from ext_proc.decision import Decision
from ext_proc.endpoint import EndpointState
from ext_proc.events import Began, BlocksRemoved, BlocksStored, Cancelled, Ended, Moved, Placed, Standing
from ext_proc.in_flight import InFlight
from ext_proc.memory import Memory
from ext_proc.outputs import OutputHistory
from ext_proc.pick_id import PickIds
from ext_proc.replicas import Replicas
from ext_proc.session import SessionTable
from fleet.cost_model import CostModel
from fleet.index import PrefixIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ext_proc.choice import Considered
    from ext_proc.events import RoutingEvent
    from ext_proc.outcome import Outcome
    from ext_proc.request import RoutingRequest
    from fleet.model import Endpoint, Load, Rate, Traffic
    from fleet.settings import PickerSettings


LOST = 10.0
"""Silences after which another replica's request is over: longer than nearly all answers take."""


TOLD_PER_SILENCE = 3
"""Times in each `silence_seconds` that the others hear of a running request: one may get lost."""

_NOTHING: Mapping[str, float] = MappingProxyType({})


def _nobody_asks(id_: str, ended: Ended | None, now: float) -> None:
    """What becomes of picks interests nobody else."""


def _nobody_listens(_address: str, _event: RoutingEvent) -> None:
    """Nobody else places requests."""


class Picker:
    """Places requests on endpoints and learns from what becomes of them.

    `publish` is called with all that this replica placed or learned by itself, and the endpoint it is about:
    for the others. What came by `apply` is not told again.
    """

    def __init__(
        self,
        settings: PickerSettings,
        endpoints: Iterable[Endpoint],
        seed: int = 0,
        *,
        news_delay: float = 0.6,
        stale_after: float = 10.0,
        name: str = "",
    ) -> None:
        """`seed` draws among equals and makes ids. Seconds: a first token is heard of within `news_delay`;
        a scrape older than `stale_after` says nothing any more. `name` is this replica's own."""
        self._settings = settings
        known = tuple(endpoints)
        costs = {endpoint.model: CostModel() for endpoint in known}
        self._endpoints = {
            e.address: EndpointState(e, costs[e.model], news_delay, stale_after) for e in known
        }
        self._index = PrefixIndex(
            self._endpoints, int(settings.default_kv_tokens / settings.tokens_per_block)
        )
        self._sessions = SessionTable(settings.sessions_max)
        self._outputs = OutputHistory(settings.expected_output_tokens)
        self._in_flight = InFlight(self._endpoints, self._index, self._sessions, self._outputs)
        self.replicas = Replicas(name)
        self._appraiser = Appraiser(
            self._endpoints,
            self._index,
            self._sessions,
            self._outputs,
            self.replicas,
            random.Random(seed),
            settings.endpoints_per_pick,
        )
        self._behind_grpc = {e.grpc_address: e.address for e in known if e.grpc_address}
        self.when_over: Callable[[str, Ended | None, float], None] = _nobody_asks
        self.publish: Callable[[str, RoutingEvent], None] = _nobody_listens
        self.memory = Memory(self._endpoints, self._index, self._sessions)
        self._ids = PickIds(seed)

    @property
    def in_flight(self) -> int:
        """Requests placed and not over yet."""
        return len(self._in_flight)

    @property
    def known_blocks(self) -> int:
        """Distinct prefix blocks that some endpoint is believed to hold."""
        return len(self._index)

    def home(self, session: str) -> str | None:
        """The endpoint that the session was last sent to; None where it has none."""
        return self._sessions.home(session)

    @property
    def endpoints(self) -> Mapping[str, EndpointState]:
        """Every endpoint's state by address, for those who show it; only the picker changes it."""
        return self._endpoints

    def report_to(self, observer: Callable[[Outcome], None]) -> None:
        """`observer` hears, at once, how each request ended that was decided here."""
        self._in_flight.observer = observer

    def pick(self, request: RoutingRequest, now: float) -> Decision | None:
        """The best endpoints among the request's candidates; None if none of them is known."""
        considered = self.consider(request, now)
        return None if considered is None else self.place(request, considered, now)

    def consider(
        self,
        request: RoutingRequest,
        now: float,
        reserved: Mapping[str, float] = _NOTHING,
        held_seconds: float = 0.0,
    ) -> Considered | None:
        """Where the request would go; nothing is booked. None if no candidate of it is known.

        `reserved`: seconds of prefill, by endpoint, that are as good as placed there. `held_seconds` of
        prefill, together, belong to requests that wait to be placed.
        """
        return self._appraiser.consider(request, now, reserved, held_seconds)

    def place(self, request: RoutingRequest, considered: Considered, now: float) -> Decision:
        """Book the request where it was considered best."""
        candidates, why = considered.candidates, considered.why
        best = candidates[0].prediction
        placed = Placed(
            id=self._ids.next(),
            at=now,
            request=request,
            endpoints=tuple(c.prediction.address for c in candidates[: self._settings.endpoints_per_pick]),
            believed_tokens=best.believed_tokens,
            matched_tokens=best.matched_tokens,
            uncached_tokens=best.uncached_tokens,
            work=best.work,
            prefill=best.prefill,
            replica=self.replicas.name,
        )
        self._in_flight.place(placed, now, best.ttft)
        self.publish(placed.endpoints[0], placed)
        return Decision(
            placed.id,
            placed.endpoints,
            best.ttft,
            best.matched_tokens,
            tuple(candidates),
            why,
            placed,
            self._grpc_addresses(placed.endpoints) if request.grpc else (),
        )

    def endpoint_at(self, address: str) -> str:
        """The endpoint that is dialled at `address`, its own or its gRPC one; a stranger's stays as it is."""
        return self._behind_grpc.get(address, address)

    def queues(self, now: float) -> list[float]:
        """Each endpoint's seconds until it should have computed all prompts that were placed there."""
        return [s.ledger.queue_seconds(now, s.rates.prefill) for s in self._endpoints.values()]

    def expected_output(self, request: RoutingRequest) -> float:
        """Tokens that the answer should have."""
        return self._outputs.expected(request.kind, request.output_limit)

    def kv_share(self, addresses: Iterable[str], now: float) -> float:
        """The share, 0..1, of these endpoints' KV caches that requests in flight hold, as far as is known."""
        used = room = 0.0
        for address in addresses:
            state = self._endpoints.get(address)
            load = None if state is None else state.fresh_load(now)
            if state is not None and load is not None and load.ready and load.kv_tokens:
                scraped = load.kv_blocks_used * load.tokens_per_block
                used += max(scraped, min(load.kv_tokens, state.ledger.kv_tokens))
                room += load.kv_tokens
        return used / room if room else 0.0

    def apply(self, event: RoutingEvent, now: float) -> None:
        """News of another replica's placements, or of an engine's cache; what is unknown here is ignored."""
        match event:
            case Placed():
                self._follow(event, now)
            case Began():
                self._in_flight.first_token(event.id, event.at)
            case Moved():
                self._in_flight.running(event.id, event.at, event.endpoint, event.attempts)
            case Ended():
                self._finish(event)
            case Cancelled():
                self._in_flight.cancel(event.id, event.at)
                self.when_over(event.id, None, event.at)
            case Standing():
                self._in_flight.keep_only(event, now)
            case BlocksStored():
                self._store(event)
            case BlocksRemoved():
                self._forget(event)

    def placed_at(self, id_: str) -> float | None:
        """When the outstanding request `id_` was placed; None if there is no such request."""
        return self._in_flight.placed_at(id_)

    def running(self, id_: str, now: float, *, endpoint: str = "", attempts: int = 1) -> bool:
        """The log speaks of the request: it is at `endpoint` ('' where it does not say), in that attempt.

        False if no such request is outstanding.
        """
        often = self._settings.silence_seconds / TOLD_PER_SILENCE
        if self._in_flight.worth_telling(id_, endpoint, attempts, now, often):
            self.publish(self._in_flight.address(id_), Moved(id_, now, endpoint, attempts))
        return self._in_flight.running(id_, now, endpoint, attempts)

    def cancel(self, id_: str, now: float) -> None:
        """Nobody heard of the decision: the request will not come."""
        if id_ in self._in_flight:
            self.publish(self._in_flight.address(id_), Cancelled(id_, now))
        self._in_flight.cancel(id_, now)
        self.when_over(id_, None, now)

    def first_token(self, id_: str, at: float) -> bool:
        """The request's first token came at `at`. False if no such request is outstanding."""
        if self._in_flight.awaits_first_token(id_):
            self.publish(self._in_flight.address(id_), Began(id_, at))
        return self._in_flight.first_token(id_, at)

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
        ended = Ended(
            id_,
            now,
            endpoint,
            failed,
            answered,
            decode_seconds,
            output_tokens,
            prompt_tokens,
            cached_tokens,
        )
        address = self._in_flight.address(id_)
        known = self._finish(ended)
        if known:
            self.publish(address, ended)
        return known

    def outstanding(self, replica: str | None = None) -> list[Placed | Began]:
        """Requests under way, as another replica has to hear of them; of one replica, or of all."""
        return self._in_flight.outstanding(replica)

    def observe(self, address: str, load: Load, now: float) -> None:
        """One scrape of an endpoint."""
        state = self._endpoints.get(address)
        if state is None:
            return
        if not load.ready and (state.load is None or state.load.ready):
            self._index.clear(address)  # whatever comes back has an empty cache
            state.residency.restarted()
        state.observe(load, now)
        state.changed()
        if load.kv_tokens:
            self._index.resize(address, int(load.kv_tokens / self._settings.tokens_per_block))

    def observe_loaded(self, address: str, models: Iterable[str] | None, loras: Iterable[str] | None) -> None:
        """What an endpoint says it has loaded; None where it does not list them."""
        state = self._endpoints.get(address)
        if state is not None:
            state.residency.models = None if models is None else frozenset(models)
            state.residency.listed = None if loras is None else frozenset(loras)

    def knows_lora(self, name: str, addresses: Iterable[str]) -> bool:
        """Whether one of these endpoints says that it has an adapter of that name."""
        known = (self._endpoints[address] for address in addresses if address in self._endpoints)
        return any(state.residency.lists_lora(name) for state in known)

    def believe(self, address: str, prefill: float, *, certain: bool = False) -> None:
        """An endpoint's prefill rate (tokens a second) is known from elsewhere: by one who learned it before
        this picker started, or who has set a power limit. `certain` rates are not learned any further."""
        state = self._endpoints.get(address)
        if state is not None:
            state.rates.believe(prefill, certain=certain)
            state.changed()

    def expire(self, now: float) -> int:
        """Give up requests that the log no longer speaks of, and idle sessions; how many of our own requests.

        Each replica gives up all that it knows of: counted by its own, a lost request counts once.
        """
        self.replicas.expire(now)
        silence = self._settings.silence_seconds
        silent = self._in_flight.silent_since(now - silence, now - LOST * silence, self.replicas.present)
        own = set(self._in_flight.of_replica(self.replicas.name)) if silent else set()
        for id_ in silent:
            if id_ in own:
                self.publish(self._in_flight.address(id_), Cancelled(id_, now))
            # Of another's: whoever still hears of it, let them; it is not ours to declare over.
            self._in_flight.cancel(id_, now)
            self.when_over(id_, Ended(id_, now), now)
        self._sessions.expire(now - self._settings.session_ttl_seconds)
        self._appraiser.refresh(now)
        return len(own.intersection(silent))

    def traffic(self, at: float) -> dict[str, Traffic]:
        """What was seen of each endpoint lately; `at` is the Unix time to put on it."""
        return {address: state.record(at) for address, state in self._endpoints.items()}

    def rates(self, at: float) -> dict[str, Rate]:
        """What was learned of each endpoint that answered anything; `at` is the Unix time to put on it."""
        return {a: s.rate(at) for a, s in self._endpoints.items() if s.rates.observations}

    def _grpc_addresses(self, addresses: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._endpoints[address].endpoint.grpc_address for address in addresses)

    def _finish(self, ended: Ended) -> bool:
        known = self._in_flight.finish(ended)
        if known:
            self.when_over(ended.id, ended, ended.at)
        return known

    def _follow(self, event: Placed, now: float) -> None:
        if event.replica == self.replicas.name:
            return  # our own, come back: known, or over already
        if not event.again:
            self.replicas.heard(event.replica, event.at, now)
        if event.endpoints[0] in self._endpoints and event.id not in self._in_flight:
            self._in_flight.place(event, now)

    def _store(self, event: BlocksStored) -> None:
        if event.address in self._endpoints:
            self._index.insert(event.address, event.blocks)

    def _forget(self, event: BlocksRemoved) -> None:
        if event.address not in self._endpoints:
            return
        if event.blocks is None:
            self._index.clear(event.address)
        else:
            self._index.remove(event.address, event.blocks)
