"""From an HTTP request to a decision: read it, ask at the door, wait for an endpoint.

Whatever cannot be understood is left alone and counted: Envoy then balances it by weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc import protocols
from ext_proc.admission.refusal import Refusal
from ext_proc.early import announced_bytes, never_half_closes
from ext_proc.parts import Parts
from ext_proc.reader import Reader
from ext_proc.tallies import Tallies
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ext_proc.admission.door import Admission
    from ext_proc.choice import Considered
    from ext_proc.decision import Decision
    from ext_proc.picker import Picker
    from ext_proc.protocols import Protocol
    from ext_proc.reader import Read
    from ext_proc.request import RoutingRequest
    from ext_proc.trust import Trust
    from ext_proc.waiting import Held, WaitingRoom
    from fleet.model import Fleet
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings

REFUSED = "refused"
"""The outcome of a request that is answered 429."""


@dataclass(frozen=True, slots=True)
class Steered:
    """What became of one request: a decision, or that it waits for one, or is refused, or why there is none.

    `outcome` is a word for counters.
    """

    outcome: str
    decision: Decision | None = None
    held: Held | None = None  # where it waits
    refused: Refusal | None = None  # what it is answered in place of the model
    unreadable: bool = False  # its body says nothing that a decision could go by


class Steerer:
    """Joins the reader, the door and the waiting room in front of one picker."""

    def __init__(
        self,
        settings: PickerSettings,
        fleet: Fleet,
        hasher: PrefixHasher,
        picker: Picker,
        room: WaitingRoom,
        trust: Trust | None = None,
        admission: Admission | None = None,
        *,
        retry_bytes: int = 8 << 20,
    ) -> None:
        """`room` is the one in front of `picker`. Without `trust` nobody's word counts, without `admission`
        nobody is turned away. Envoy can retry bodies of at most `retry_bytes`."""
        self.reader = Reader(settings, fleet, hasher, picker, trust, admission)
        self.tallies = Tallies()
        self._picker = picker
        self._parts = Parts(picker.endpoint_at)
        self._room = room
        self._admission = admission
        self._retry_bytes = retry_bytes

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""
        return protocols.find(method, path) is not None

    def decide_early(
        self, cluster: str, headers: Mapping[str, str], now: float, among: Collection[str] | None = None
    ) -> Steered | None:
        """Decide from the headers alone, where that can be done or must be; None: `steer` wants the body.

        A session's next turn is decided so (`picker.session_fast_path`) where its own endpoint is still the
        best for it; a gRPC stream that never ends, always, by load alone. `among`: as in `steer`.
        """
        if never_half_closes(headers):
            if not self.reader.knows(cluster):
                return Steered("unknown-cluster")
            opened = self._narrowed(self.reader.unread(cluster, headers, now), among)
            return self._admit(cluster, opened, now) if opened.candidates else Steered("no-endpoint")
        path = headers.get(":path", "")
        if not (self.reader.knows(cluster) and self.wants_body(headers.get(":method", ""), path)):
            return None
        request = self.reader.next_turn(cluster, path, headers, now)
        home = self._picker.home(request.session) if request is not None else None
        if home is None or request is None:
            return None
        request = self._narrowed(request, among)
        considered = self._room.consider(request, now)
        if considered is None or considered.candidates[0].prediction.address != home:
            return None
        return self._admit(cluster, request, now, considered)

    def decide_unread(
        self, cluster: str, headers: Mapping[str, str], now: float, among: Collection[str] | None = None
    ) -> Steered:
        """Decide by load alone and at once: what has no prompt that can be read needs an engine, too.

        `among`: as in `steer`.
        """
        if not self.reader.knows(cluster):
            return Steered("unknown-cluster")
        request = self._narrowed(self.reader.unread(cluster, headers, now), among)
        # It moves no session: it may be a question for the list of models.
        decision = self._picker.pick(replace(request, session=""), now)
        return Steered("steered-unread" if decision else "no-endpoint", decision)

    def steer(
        self,
        cluster: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now: float,
        among: Collection[str] | None = None,
    ) -> Steered:
        """Decide one request. `cluster` is what the route chose; only its endpoints are candidates.

        Where `among` is there, only those of them: addresses as Envoy dials them.
        """
        protocol = protocols.find(headers.get(":method", "POST"), path)
        if protocol is None:
            return Steered("passed")
        if max(announced_bytes(headers) or 0, len(body)) > self._retry_bytes:
            self.tallies.not_retriable += 1
        read = self._read(protocol, cluster, path, headers, body, now)
        if isinstance(read, Steered):
            if read.unreadable:
                self.tallies.unreadable[protocol.name, read.outcome] += 1
            return self._told(protocol.name, read, "unreadable" if read.unreadable else "")
        self.reader.remember(cluster, path, read)
        request = self._narrowed(read.request, among)
        if not request.candidates:
            return self._told(protocol.name, Steered("no-endpoint"))
        return self._told(protocol.name, self._admit(cluster, request, now))

    def consider(
        self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> Considered | Steered:
        """Where `steer` would send the request, or why nowhere; nothing is booked and nobody turned away."""
        protocol = protocols.find(headers.get(":method", "POST"), path)
        if protocol is None:
            return Steered("passed")
        read = self._read(protocol, cluster, path, headers, body, now)
        if isinstance(read, Steered):
            return Steered(read.outcome)
        return self._room.consider(read.request, now) or Steered("no-endpoint")

    def _read(
        self,
        protocol: Protocol,
        cluster: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now: float,
    ) -> Read | Steered:
        """The request, or why it cannot be decided."""
        if not self.reader.knows(cluster):
            return Steered("unknown-cluster")
        try:
            return self.reader.read(protocol, cluster, path, headers, body, now)
        except UnreadableRequestError as error:
            return Steered(error.reason, unreadable=True)

    def _admit(
        self, cluster: str, request: RoutingRequest, now: float, considered: Considered | None = None
    ) -> Steered:
        """To the waiting room, unless the request is refused before."""
        visit = None
        if self._admission is not None:
            visit = self._admission.visit(self.reader.model(cluster), request, now)
        if isinstance(visit, Refusal):
            return Steered(REFUSED, refused=visit)
        held = self._room.arrive(request, now, visit, considered)
        return settled(held) if held.settled else Steered("held", held=held)

    def _narrowed(self, request: RoutingRequest, among: Collection[str] | None) -> RoutingRequest:
        """The same request for those of its candidates that are allowed."""
        if among is None:
            return request
        return replace(request, candidates=self._parts.of(request.candidates, among))

    def _told(self, protocol: str, steered: Steered, outcome: str = "") -> Steered:
        self.tallies.by_protocol[protocol, outcome or steered.outcome] += 1
        return steered


def settled(held: Held) -> Steered:
    """What became of a request that has its decision, at once or after a wait."""
    if held.refused is not None:
        return Steered(REFUSED, refused=held.refused)
    return Steered("steered" if held.decision else "no-endpoint", held.decision)
