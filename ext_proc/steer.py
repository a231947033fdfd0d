"""From an HTTP request to a decision: parse, hash, find the session, pick.

Whatever cannot be understood is left alone and counted: Envoy then balances it by weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ext_proc import openai, session
from ext_proc.admission.refusal import Refusal
from ext_proc.request import RoutingRequest
from ext_proc.trust import NOBODY
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.admission.door import Admission
    from ext_proc.decision import Decision
    from ext_proc.picker import Picker
    from ext_proc.request import WorkloadClass
    from ext_proc.trust import Caller, Trust
    from ext_proc.waiting import Held, WaitingRoom
    from fleet.model import Fleet
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings

LENGTH_DIGITS_MAX = 12
"""Of a content-length that can be true: a terabyte."""


PROMPT_TOKENS_MAX = 1e7
"""Of any model's context: what a content-length claims beyond it must not count as work."""


REFUSED = "refused"
"""The outcome of a request that is answered 429."""


class Standing(TypedDict):
    """How urgent a request is, in the words of `RoutingRequest`."""

    priority: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Steered:
    """What became of one request: a decision, or that it waits for one, or is refused, or why there is none.

    `outcome` is a word for counters.
    """

    outcome: str
    decision: Decision | None = None
    held: Held | None = None  # where it waits
    refused: Refusal | None = None  # what it is answered in place of the model


class Steerer:
    """Joins protocols, hashing and the picker for one fleet."""

    def __init__(
        self,
        settings: PickerSettings,
        fleet: Fleet,
        hasher: PrefixHasher,
        picker: Picker,
        room: WaitingRoom,
        trust: Trust | None = None,
        admission: Admission | None = None,
    ) -> None:
        """`room` is the one in front of `picker`. Without `trust` nobody's word counts, without `admission`
        nobody is turned away."""
        self._settings = settings
        self._hasher = hasher
        self._picker = picker
        self._room = room
        self._trust = trust
        self._admission = admission
        self._candidates = {
            cluster: (endpoints[0].model, tuple(endpoint.address for endpoint in endpoints))
            for cluster, endpoints in fleet.clusters.items()
            if endpoints
        }

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""
        return method == "POST" and openai.speaks(path)

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        """Decide one request. `cluster` is what the route chose; only its endpoints are candidates."""
        if cluster not in self._candidates:
            return Steered("unknown-cluster")
        model, candidates = self._candidates[cluster]
        try:
            prompt = openai.parse(path, body)
        except UnreadableRequestError as error:
            return Steered(error.reason)
        caller = self.caller(headers)
        root = self._hasher.root(model, prompt.model, caller.tenant, prompt.cache_salt)
        named = session.from_headers(headers, self._settings.session_headers, self._settings.session_cookie)
        request = RoutingRequest(
            candidates=candidates,
            prompt_tokens=min(
                PROMPT_TOKENS_MAX,
                len(prompt.text) * _unseen(headers, body) / self._settings.bytes_per_token,
            ),
            blocks=self._hasher.blocks(prompt.text[: self._settings.max_hashed_bytes], root),
            tokens_per_block=self._settings.tokens_per_block,
            output_limit=prompt.output_tokens,
            session=session.of_tenant(named or prompt.session, caller.tenant),
            streamed=prompt.streamed,
            model=prompt.model,
            lora=self._lora(prompt.model, model, candidates),
            workload_class=self._workload_class(headers),
            zone=self._settings.zone,
            tenant=caller.tenant,
            **self._standing(model, caller, now),
        )
        return self._admit(model, request, now)

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whom the request is for, as far as somebody trusted says so."""
        return NOBODY if self._trust is None else self._trust.caller(headers)

    def _standing(self, model: str, caller: Caller, now: float) -> Standing:
        if self._admission is None:
            return {"priority": caller.priority or 0, "deadline": math.inf}
        return {
            "priority": self._admission.priority(model, caller),
            "deadline": self._admission.deadline(model, caller, now),
        }

    def _admit(self, model: str, request: RoutingRequest, now: float) -> Steered:
        """To the waiting room, unless the request is refused before."""
        visit = None if self._admission is None else self._admission.visit(model, request, now)
        if isinstance(visit, Refusal):
            return Steered(REFUSED, refused=visit)
        held = self._room.arrive(request, now, visit)
        return settled(held) if held.settled else Steered("held", held=held)

    def _lora(self, named: str, model: str, candidates: Sequence[str]) -> str:
        """The adapter that a request names in place of its model, or ''.

        Another name may also be one more for the model itself, and then it needs nothing loaded: only what
        engines list is an adapter.
        """
        return named if named != model and self._picker.knows_lora(named, candidates) else ""

    def _workload_class(self, headers: Mapping[str, str]) -> WorkloadClass:
        name = self._settings.class_header
        return "batch" if name and headers.get(name) == "batch" else "interactive"


def settled(held: Held) -> Steered:
    """What became of a request that has its decision, at once or after a wait."""
    if held.refused is not None:
        return Steered(REFUSED, refused=held.refused)
    return Steered("steered" if held.decision else "no-endpoint", held.decision)


def _unseen(headers: Mapping[str, str], body: bytes) -> float:
    """How many times longer the whole body is than the beginning of it that Envoy sent."""
    announced = headers.get("content-length", "")
    if not body or not (announced.isascii() and announced.isdigit()) or len(announced) > LENGTH_DIGITS_MAX:
        return 1.0
    return max(1.0, int(announced) / len(body))
