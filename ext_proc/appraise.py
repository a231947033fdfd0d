"""Where a request would go now: every candidate's prospects and price, or those of the likeliest of many."""

from __future__ import annotations

import math
from collections import OrderedDict
from operator import attrgetter
from typing import TYPE_CHECKING

from ext_proc.choice import Considered, order, prefer_in_time, tie
from ext_proc.predict import predict
from ext_proc.price import PATIENCE, Pool, Sums, price
from ext_proc.shortlist import LOOKS_MAX, Board, Group

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from ext_proc.endpoint import EndpointState
    from ext_proc.outputs import OutputHistory
    from ext_proc.predict import Prediction
    from ext_proc.price import Candidate
    from ext_proc.replicas import Replicas
    from ext_proc.request import RoutingRequest
    from ext_proc.session import SessionTable
    from fleet.index import PrefixIndex

FEW = 16
"""So many candidates are all looked at closely: a shortlist would save nothing."""

GROUPS_MAX = 256
"""Sets of candidates remembered: one a cluster, and the parts that gateways ask for."""


class Appraiser:
    """Over the picker's endpoints and what it knows of sessions, prefixes, answers and replicas."""

    def __init__(
        self,
        endpoints: Mapping[str, EndpointState],
        index: PrefixIndex,
        sessions: SessionTable,
        outputs: OutputHistory,
        replicas: Replicas,
        draw: random.Random,
        wanted: int,
    ) -> None:
        """So many endpoints are `wanted` at least, where there are as many."""
        self._wanted = wanted
        self._endpoints = endpoints
        self._index = index
        self._sessions = sessions
        self._outputs = outputs
        self._replicas = replicas
        self._random = draw
        self._board = Board(tuple(endpoints.values()), draw.getrandbits(32)) if len(endpoints) > FEW else None
        self._groups: OrderedDict[int, tuple[Sequence[str], Group]] = OrderedDict()

    def consider(
        self, request: RoutingRequest, now: float, reserved: Mapping[str, float], held_seconds: float
    ) -> Considered | None:
        """The candidates, best first; None if none of them is known. `Picker.consider` says the rest."""
        group = self._group(request.candidates)
        home = self._sessions.home(request.session)
        if group is not None:
            candidates = self._likeliest(request, group, home, reserved, held_seconds, now)
            count = len(group.states)
        else:
            states = self._usable(self._known(request.candidates), request, now)
            if not states:
                return None
            candidates = self._all(request, states, reserved, held_seconds, now)
            count = len(states)
        why = order(candidates, self._endpoints, home, self._random)
        if request.deadline < math.inf:
            why = prefer_in_time(candidates, request.deadline - now) or why
        return Considered(candidates, why, count)

    def refresh(self, now: float) -> None:
        """Bring up to `now` what the clock alone changes."""
        for state in self._endpoints.values():
            state.rates.settle(now)
        if self._board is not None:
            self._board.refresh()
            self._board.bring_up(now)

    def _known(self, addresses: Sequence[str]) -> list[EndpointState]:
        asked = dict.fromkeys(addresses)
        return [self._endpoints[address] for address in asked if address in self._endpoints]

    def _usable(
        self, states: Sequence[EndpointState], request: RoutingRequest, now: float
    ) -> Sequence[EndpointState]:
        """Those that serve the model and are well; all of them where none is."""
        serving = [state for state in states if state.residency.serves(request.model)] or states
        return [state for state in serving if state.usable(now)] or serving

    def _group(self, addresses: Sequence[str]) -> Group | None:
        """The candidates as a group, where they are many. Requests share the list that names them."""
        if self._board is None or len(addresses) <= FEW:
            return None
        kept = self._groups.get(id(addresses))
        if kept is not None and kept[0] is addresses:
            self._groups.move_to_end(id(addresses))
            return kept[1]
        states = self._known(addresses)
        if len(states) <= FEW:
            return None
        members = self._index.members(state.endpoint.address for state in states)
        group = Group(states, members, self._board)
        self._groups[id(addresses)] = addresses, group
        if len(self._groups) > GROUPS_MAX:
            self._groups.popitem(last=False)
        return group

    def _all(
        self,
        request: RoutingRequest,
        states: Sequence[EndpointState],
        reserved: Mapping[str, float],
        held_seconds: float,
        now: float,
    ) -> list[Candidate]:
        matched = self._index.match(request.blocks, [state.endpoint.address for state in states])
        output = self._outputs.expected(request.kind, request.output_limit)
        predictions = [self._predict(state, request, matched, output, reserved, now) for state in states]
        shortest = min(p.prefill_wait + p.room_wait for p in predictions)
        pool = Pool.of(Sums.of(states, now), shortest, held_seconds)
        return self._price(states, predictions, pool, request, output)

    def _likeliest(
        self,
        request: RoutingRequest,
        group: Group,
        home: str | None,
        reserved: Mapping[str, float],
        held_seconds: float,
        now: float,
    ) -> list[Candidate]:
        """The closest look at as few as will do: the cheapest, its like, and the session's endpoint."""
        blocks = group.blocks(self._index.depths(request.blocks, group.members))
        output = self._outputs.expected(request.kind, request.output_limit)
        waits = group.waits(now)
        pool = Pool.of(group.sums(now), float(waits.min()), held_seconds)
        look = group.look(
            waits,
            request,
            blocks,
            reserved,
            request.prompt_tokens + output,
            pool.seconds_per_token,
            PATIENCE[request.workload_class],
            self._random.getrandbits(30),
        )
        at_home = group.at(home)
        looked_at = 0
        found: list[Candidate] = []
        for batch, bound in look.batches():
            looked_at += len(batch)
            states: Sequence[EndpointState] = self._well(batch, request, now)
            if at_home is not None and at_home not in states:
                states = [*states, *self._well([at_home], request, now)]
            at_home = None
            matched = group.matched(blocks, states)
            predictions = [self._predict(state, request, matched, output, reserved, now) for state in states]
            found += self._price(states, predictions, pool, request, output)
            if len(found) >= self._wanted and (bound >= _good_enough(found) or looked_at >= LOOKS_MAX):
                return found
        if found:
            return found
        states = self._usable(group.states, request, now)[:LOOKS_MAX]
        matched = group.matched(blocks, states)
        predictions = [self._predict(state, request, matched, output, reserved, now) for state in states]
        return self._price(states, predictions, pool, request, output)

    @staticmethod
    def _well(states: Sequence[EndpointState], request: RoutingRequest, now: float) -> list[EndpointState]:
        return [s for s in states if s.residency.serves(request.model) and s.usable(now)]

    def _predict(
        self,
        state: EndpointState,
        request: RoutingRequest,
        matched: Mapping[str, int],
        output: float,
        reserved: Mapping[str, float],
        now: float,
    ) -> Prediction:
        if state.rates.settle(now):
            state.changed()
        state.demand.refresh(now)
        address = state.endpoint.address
        return predict(state, request, matched.get(address, 0), output, now, reserved.get(address, 0.0))

    def _price(
        self,
        states: Sequence[EndpointState],
        predictions: Sequence[Prediction],
        pool: Pool,
        request: RoutingRequest,
        output: float,
    ) -> list[Candidate]:
        unseen = self._replicas.unseen(pool.arrivals) * pool.service
        elsewhere = [0.0 if self._replicas.owns(p.address) else unseen for p in predictions]
        needed = request.prompt_tokens + output
        return price(states, predictions, pool, elsewhere, needed, request.workload_class)


def _good_enough(found: Sequence[Candidate]) -> float:
    """A cost that is equal to the best one found, or better by nothing that counts."""
    best = min(found, key=attrgetter("cost"))
    return best.cost - tie(best)
