"""From an HTTP request to a decision: parse, hash, find the session, pick.

Whatever cannot be understood is left alone and counted: Envoy then balances it by weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ext_proc import protocols, session
from ext_proc.protocols.tokens import BYTES_PER_ID
from ext_proc.request import RoutingRequest
from ext_proc.tallies import Tallies
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.decision import Decision
    from ext_proc.picker import Picker
    from ext_proc.request import Prompt, WorkloadClass
    from ext_proc.waiting import Held, WaitingRoom
    from fleet.model import Fleet
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings

LENGTH_DIGITS_MAX = 12
"""Of a content-length that can be true: a terabyte."""


PROMPT_TOKENS_MAX = 1e7
"""Of any model's context: what a content-length claims beyond it must not count as work."""


@dataclass(frozen=True, slots=True)
class Steered:
    """What became of one request: a decision, or that it waits for one, or why there will be none.

    `outcome` is a word for counters.
    """

    outcome: str
    decision: Decision | None = None
    held: Held | None = None  # where it waits


class Steerer:
    """Joins protocols, hashing and the picker for one fleet."""

    def __init__(
        self,
        settings: PickerSettings,
        fleet: Fleet,
        hasher: PrefixHasher,
        picker: Picker,
        room: WaitingRoom,
        retry_bytes: int = 8 << 20,
    ) -> None:
        """`room` is the one in front of `picker`. Envoy can retry bodies of at most `retry_bytes`."""
        self._settings = settings
        self._hasher = hasher
        self._picker = picker
        self._room = room
        self._retry_bytes = retry_bytes
        self._reading = reading(settings)
        self.tallies = Tallies()
        self._candidates = {
            cluster: (endpoints[0].model, tuple(endpoint.address for endpoint in endpoints))
            for cluster, endpoints in fleet.clusters.items()
            if endpoints
        }

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""
        return protocols.find(method, path) is not None

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        """Decide one request. `cluster` is what the route chose; only its endpoints are candidates."""
        protocol = protocols.find(headers.get(":method", "POST"), path)
        if protocol is None:
            return Steered("passed")
        announced = _announced(headers)
        if max(announced, len(body)) > self._retry_bytes:
            self.tallies.not_retriable += 1
        if cluster not in self._candidates:
            return self._told(protocol.name, Steered("unknown-cluster"))
        try:
            prompt = protocol.parse(protocols.Call(path, headers, body, self._reading))
        except UnreadableRequestError as error:
            self.tallies.unreadable[protocol.name, error.reason] += 1
            return self._told(protocol.name, Steered(error.reason), "unreadable")
        request = self._request(cluster, prompt, headers, _times(prompt, body, announced))
        held = self._room.arrive(request, now)
        return self._told(protocol.name, settled(held) if held.settled else Steered("held", held=held))

    def _told(self, protocol: str, steered: Steered, outcome: str = "") -> Steered:
        self.tallies.by_protocol[protocol, outcome or steered.outcome] += 1
        return steered

    def _request(
        self, cluster: str, prompt: Prompt, headers: Mapping[str, str], times: float
    ) -> RoutingRequest:
        """What the picker is asked. The whole prompt is `times` as long as what was read of it."""
        settings = self._settings
        model, candidates = self._candidates[cluster]
        exact = prompt.tokens is not None
        tokens = prompt.tokens if exact else len(prompt.text) / settings.bytes_per_token
        root = self._hasher.root(
            model, prompt.model or model, prompt.lora, prompt.cache_salt, "ids" if exact else ""
        )
        hashed = prompt.text[: settings.max_hashed_bytes] if prompt.cacheable else b""
        named = session.from_headers(headers, settings.session_headers, settings.session_cookie)
        return RoutingRequest(
            candidates=candidates,
            prompt_tokens=min(PROMPT_TOKENS_MAX, (tokens or 0) * times),
            blocks=self._hasher.blocks(hashed, root),
            tokens_per_block=settings.block_bytes / BYTES_PER_ID if exact else settings.tokens_per_block,
            output_limit=prompt.output_tokens,
            session=named or prompt.session,
            streamed=prompt.streamed,
            model=prompt.model,
            lora=self._lora(prompt.lora or prompt.model, model, candidates),
            workload_class=self._workload_class(headers),
            zone=settings.zone,
        )

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
    return Steered("steered" if held.decision else "no-endpoint", held.decision)


def reading(settings: PickerSettings) -> protocols.Reading:
    """How the settings have requests read."""
    return protocols.Reading(
        bytes_max=settings.max_parsed_bytes,
        media_bytes=round(settings.media_tokens * settings.bytes_per_token),
        session_keys=tuple(tuple(key.split(".")) for key in settings.session_body_keys),
    )


def _announced(headers: Mapping[str, str]) -> int:
    """How long the whole body is, as the client says; 0 where it says nothing that makes sense."""
    announced = headers.get("content-length", "")
    if not (announced.isascii() and announced.isdigit()) or len(announced) > LENGTH_DIGITS_MAX:
        return 0
    return int(announced)


def _times(prompt: Prompt, body: bytes, announced: int) -> float:
    """How many times longer the whole body is than what was read of it, sent or not."""
    read = len(body) if prompt.read_bytes is None else prompt.read_bytes
    return max(announced, len(body), read) / read if read else 1.0
