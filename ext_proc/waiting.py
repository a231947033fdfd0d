"""Requests that wait in the picker instead of in an engine: late binding, and the short ones first.

An engine computes prompts in order of arrival, and what it got it keeps. So where every endpoint worth going
to has a queue as long as news takes to come, a longer one gains nothing: the request is held until one of
those queues is shorter. By then it is known who is really free, and of those that wait, one that delays
the others less may go first.

Queues are counted by the clock alone: where news stays away, nobody is held for what should be over by now.
Replicas tell each other whom they hold (`take_news`, `hear`), and keep one order together.
No clock, no I/O: requests and `now` in, decisions out.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from ext_proc.events import Left, Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ext_proc.admission.refusal import Refusal
    from ext_proc.choice import Considered
    from ext_proc.decision import Decision
    from ext_proc.events import HoldEvent, Standing
    from ext_proc.picker import Picker
    from ext_proc.request import RoutingRequest

DISPATCH_SECONDS = 0.02
"""Between two looks at who may go: short beside prompts that take long enough to build a queue."""

FED_SECONDS = 0.5
"""Of prefill that an endpoint is kept supplied with. First tokens are heard of about so late: a shorter
queue could run dry unseen, a longer one binds requests that might yet go elsewhere."""

YIELD = 3.0
"""Seconds that a request lets others overtake it for each second that its own prefill takes. Those behind a
long prompt wait for it, those behind a short one hardly; and nobody is overtaken for ever."""

SHORT_BACKLOG = 5.0
BACKLOG_YIELD = 2.0
"""For each second of prefill that is held for the average endpoint beyond SHORT_BACKLOG, a request yields so
many seconds more: under overload somebody waits for minutes, and that should be the few long ones."""

PREDICTIONS = 512
"""Of requests at endpoints, made in vain in one dispatch: some 5 us each, so an eighth of a core at most.
Who was not looked at is in the next dispatch."""


DISPLACED_MAX = 4
"""Held requests that one arrival may send away: each costs a prediction, and more arrivals will come."""


class Gate(Protocol):
    """Who may turn a request away; `ext_proc.admission.door.Visit` is one."""

    head_start: float  # seconds by which the request goes before others that arrived with it

    def crowded(self, considered: Considered, now: float) -> bool:
        """Whether less important ones that are held should make room."""

    def refuse(self, considered: Considered, now: float) -> Refusal | None:
        """Turn it away, or let it in."""

    def displaced(self) -> Refusal:
        """What it gets where it had to make room."""

    def over(self, decision: Decision | None) -> None:
        """It is decided where it goes, or that it will not go."""


@dataclass(slots=True, eq=False)
class Held:
    """A request from its arrival to its decision. `wake` is called when it is `settled`."""

    request: RoutingRequest
    arrived: float
    gate: Gate | None = field(default=None, repr=False)
    settled: bool = False
    decision: Decision | None = None  # None where no candidate is known any more, or it was
    refused: Refusal | None = None
    wake: Callable[[], None] | None = field(default=None, repr=False)
    # While it is held:
    turn: tuple[float, int] = (0.0, 0)  # who has the lowest goes first; no two are equal
    prefill: float = 0.0  # seconds, where it is shortest
    told: bool = False  # whether the other replicas heard of it
    address: str = ""  # where it would go,
    reserved: float = 0.0  # and the seconds of prefill it would be there

    def settle(self, decision: Decision | None, refused: Refusal | None = None) -> None:
        """It goes, or there is nowhere to go, or it is turned away."""
        self.decision, self.refused, self.settled = decision, refused, True
        if self.gate is not None:
            self.gate.over(decision)
        if self.wake is not None:
            self.wake()


_TURN = attrgetter("turn")
_FIRST = (float("-inf"), 0)


class WaitingRoom:
    """In front of one picker. Times are seconds on the caller's clock, which must not go back."""

    def __init__(self, picker: Picker, longest: float, places: int) -> None:
        """Nobody is held for more than `longest` seconds (0: not at all), nor more than `places` at once."""
        self.longest = longest
        self._picker = picker
        self._places = places
        self._held: list[Held] = []  # by turn
        self._number = 0  # of requests that were held
        self._others: dict[str, Waits] = {}  # whom other replicas hold
        self._news: list[HoldEvent] = []  # for them
        self._seconds = 0.0  # of prefill, of all those held by anybody
        self._reserved: defaultdict[str, float] = defaultdict(float)  # the same by where they would go
        self._looked_at: tuple[float, int] | None = None  # how far this round of looking at them has come,
        self._ahead: defaultdict[str, float] = defaultdict(float)  # and what those before reserved in it

    def __len__(self) -> int:
        """Requests held."""
        return len(self._held)

    def arrive(
        self,
        request: RoutingRequest,
        now: float,
        gate: Gate | None = None,
        considered: Considered | None = None,
    ) -> Held:
        """A new request: settled at once where an endpoint is ready, or the gate refuses; else held.

        `considered` is what `consider` has just said of it, where somebody asked.
        """
        held = Held(request, now, gate)
        if considered is None:
            considered = self._consider(held, self._reserved, now)
        refused = None
        if gate is not None and considered is not None:
            considered = self._make_room(held, gate, considered, now)
            refused = gate.refuse(considered, now)
        if considered is None or refused is not None:
            held.settle(None, refused)
        elif not self._must_wait(considered):
            held.settle(self._picker.place(held.request, considered, now))
        else:
            if len(self._held) >= self._places:
                self._send(self._held[0], now)
            self._hold(held, considered)
        return held

    def consider(self, request: RoutingRequest, now: float) -> Considered | None:
        """Where the request would go, or wait to go, if it arrived now; nothing is booked."""
        return self._consider(Held(request, now), self._reserved, now)

    def leave(self, held: Held) -> None:
        """Its client has gone."""
        if not held.settled:
            self._remove(held)
            if held.gate is not None:
                held.gate.over(None)

    def take_news(self) -> list[HoldEvent]:
        """What the other replicas must hear, since this was asked last."""
        news, self._news = self._news, []
        return news

    def hear(self, event: HoldEvent) -> None:
        """Another replica holds a request, or does not any more."""
        known = self._others.pop(event.id, None)
        if known is not None:
            self._count(known.address, -known.reserved, -known.prefill)
        if isinstance(event, Waits) and event.replica != self._picker.replicas.name:
            self._others[event.id] = event
            self._count(event.address, event.reserved, event.prefill)

    def standing(self, model: str) -> list[Waits]:
        """Whom we hold for that model, for those who missed news."""
        return [self._waits(held) for held in self._held if self._is_of(held.address, model)]

    def keep_only(self, standing: Standing) -> None:
        """A replica said whom it holds on one model: of its others there nobody is held any longer."""
        kept = frozenset(standing.ids)
        for id_, other in list(self._others.items()):
            its = other.replica == standing.replica and self._is_of(other.address, standing.model)
            if its and id_ not in kept:
                self.hear(Left(id_))

    def forget_absent(self) -> None:
        """Whom a replica held that is not there any more, nobody holds."""
        present = self._picker.replicas.present
        for id_ in [id_ for id_, other in self._others.items() if not present(other.replica)]:
            self.hear(Left(id_))

    def dispatch(self, now: float) -> None:
        """Settle those whose turn it is; who waited for `longest` goes wherever it is best to wait."""
        for held in [held for held in self._held if held.arrived <= now - self.longest]:
            self._send(held, now)
        self.forget_absent()
        if all(queue > FED_SECONDS for queue in self._picker.queues(now)):
            self._looked_at = None
            return
        if self._looked_at is None:
            self._ahead.clear()
        self._look(now)

    def _look(self, now: float) -> None:
        """Go on with this round, or begin one, until all were looked at or it has cost enough."""
        first = 0 if self._looked_at is None else bisect_right(self._held, self._looked_at, key=_TURN)
        others = sorted((o for o in self._others.values() if o.turn > (self._looked_at or _FIRST)), key=_TURN)
        full: set[int] = set()  # candidates of whom none is ready, by identity: requests share them
        in_vain = heard = 0
        for held in self._held[first:]:
            while heard < len(others) and others[heard].turn < held.turn:
                self._ahead[others[heard].address] += others[heard].reserved
                heard += 1
            candidates = held.request.candidates
            if id(candidates) in full:
                continue
            if in_vain and in_vain + len(candidates) > PREDICTIONS:
                return
            self._looked_at = held.turn
            considered = self._consider(held, self._ahead, now)
            if considered is None or not self._must_wait(considered):
                self._remove(held)
                held.settle(self._picker.place(held.request, considered, now) if considered else None)
                continue
            in_vain += len(candidates)
            self._reserve(held, considered)
            self._ahead[held.address] += held.reserved
            if all(candidate.prediction.queue > FED_SECONDS for candidate in considered.candidates):
                full.add(id(candidates))
        self._looked_at = None

    def _make_room(self, held: Held, gate: Gate, considered: Considered, now: float) -> Considered:
        """While it is crowded for this one, send away who is held for its endpoints and less important.

        The least important first, of those the one that came last: it has waited for the shortest time.
        """
        addresses: frozenset[str] | None = None
        for _ in range(DISPLACED_MAX if self._held else 0):
            if not gate.crowded(considered, now):
                break
            addresses = addresses or frozenset(held.request.candidates)
            priority = held.request.priority
            weaker = [
                other
                for other in self._held
                if other.gate is not None and other.request.priority < priority and other.address in addresses
            ]
            if not weaker:
                break
            last = min(weaker, key=lambda other: (other.request.priority, -other.arrived, -other.turn[1]))
            refusal = last.gate.displaced() if last.gate is not None else None
            self._remove(last)
            last.settle(None, refusal)
            considered = self._consider(held, self._reserved, now) or considered
        return considered

    def _consider(self, held: Held, ahead: Mapping[str, float], now: float) -> Considered | None:
        return self._picker.consider(held.request, now, ahead, self._seconds - held.prefill)

    def _must_wait(self, considered: Considered) -> bool:
        return self.longest > 0 and considered.candidates[0].prediction.queue > FED_SECONDS

    def _hold(self, held: Held, considered: Considered) -> None:
        backlog = self._seconds / considered.of
        yielded = YIELD + BACKLOG_YIELD * max(0.0, backlog - SHORT_BACKLOG)
        held.prefill = min(candidate.prediction.prefill for candidate in considered.candidates)
        self._number += 1
        earlier = held.gate.head_start if held.gate is not None else 0.0
        held.turn = (held.arrived - earlier + yielded * held.prefill, self._number)
        insort(self._held, held, key=_TURN)
        self._count("", 0.0, held.prefill)
        self._reserve(held, considered)

    def _reserve(self, held: Held, considered: Considered) -> None:
        self._count(held.address, -held.reserved, 0.0)
        best = considered.candidates[0].prediction
        moved = held.address != best.address
        held.address, held.reserved = best.address, best.prefill
        self._count(held.address, held.reserved, 0.0)
        if (moved or not held.told) and not self._picker.replicas.nobody_else:
            self._news.append(self._waits(held))

    def _waits(self, held: Held) -> Waits:
        held.told = True
        name = self._picker.replicas.name
        return Waits(self._id(held), name, held.turn, held.address, held.reserved, held.prefill)

    def _id(self, held: Held) -> str:
        return f"{self._picker.replicas.name}/{held.turn[1]}"

    def _is_of(self, address: str, model: str) -> bool:
        state = self._picker.endpoints.get(address)
        return state is not None and state.endpoint.model == model

    def _send(self, held: Held, now: float) -> None:
        self._remove(held)
        held.settle(self._picker.pick(held.request, now))

    def _remove(self, held: Held) -> None:
        del self._held[bisect_right(self._held, held.turn, key=_TURN) - 1]
        self._count(held.address, -held.reserved, -held.prefill)
        held.prefill = held.reserved = 0.0
        if held.told:  # even if nobody is heard of now: they hear of us
            self._news.append(Left(self._id(held)))

    def _count(self, address: str, reserved: float, prefill: float) -> None:
        self._seconds += prefill
        self._reserved[address] += reserved
        if not self._held and not self._others:  # no rounding is left behind
            self._seconds = 0.0
            self._reserved.clear()
