"""From an HTTP request to a decision: parse, hash, find the session, pick.

Whatever cannot be understood is left alone and counted: Envoy then balances it by weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc import protocols, session
from ext_proc.early import Recall, announced_bytes, never_half_closes
from ext_proc.protocols.tokens import BYTES_PER_ID
from ext_proc.request import RoutingRequest
from ext_proc.tallies import Tallies
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.choice import Considered
    from ext_proc.decision import Decision
    from ext_proc.picker import Picker
    from ext_proc.protocols import Protocol
    from ext_proc.request import Prompt, WorkloadClass
    from ext_proc.waiting import Held, WaitingRoom
    from fleet.model import Fleet
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings

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
        self._recall = Recall(settings.sessions_max if settings.session_fast_path else 0)
        self._retry_bytes = retry_bytes
        self._reading = reading(settings)
        self.tallies = Tallies()
        self._candidates = {
            cluster: (endpoints[0].model, tuple(endpoint.address for endpoint in endpoints))
            for cluster, endpoints in (*fleet.clusters.items(), *fleet.grpc_clusters.items())
            if endpoints
        }
        self._grpc = frozenset(fleet.grpc_clusters)

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""
        return protocols.find(method, path) is not None

    def decide_early(self, cluster: str, headers: Mapping[str, str], now: float) -> Steered | None:
        """Decide from the headers alone, where that can be done or must be; None: `steer` wants the body.

        A session's next turn is decided so (`picker.session_fast_path`) where its own endpoint is still the
        best for it; a gRPC stream that never ends, always, by load alone.
        """
        if never_half_closes(headers):
            return self._decide_unread(cluster, headers, now)
        path, length = headers.get(":path", ""), announced_bytes(headers)
        if not self._settings.session_fast_path or length is None or cluster not in self._candidates:
            return None
        if not self.wants_body(headers.get(":method", ""), path):
            return None
        named = self._session(headers)
        home = self._picker.home(named)
        request = self._recall.next_turn(cluster, path, named, length) if home else None
        if home is None or request is None:
            return None
        request = replace(
            request,
            candidates=self._candidates[cluster][1],
            prompt_tokens=min(PROMPT_TOKENS_MAX, request.prompt_tokens),
            workload_class=self._workload_class(headers),
        )
        held = self._room.arrive_at(home, request, now)
        return None if held is None else _so_far(held)

    def _decide_unread(self, cluster: str, headers: Mapping[str, str], now: float) -> Steered:
        if cluster not in self._candidates:
            return Steered("unknown-cluster")
        request = RoutingRequest(
            candidates=self._candidates[cluster][1],
            prompt_tokens=0.0,  # nothing is asked yet
            blocks=(),
            tokens_per_block=self._settings.tokens_per_block,
            session=self._session(headers),
            streamed=False,  # its first byte comes when the client has sent something: it times no prefill
            model=headers.get(self._settings.model_header, ""),
            workload_class=self._workload_class(headers),
            zone=self._settings.zone,
            grpc=cluster in self._grpc,
        )
        return _so_far(self._room.arrive(request, now))

    def _session(self, headers: Mapping[str, str]) -> str:
        """The key of the session that the headers name, or ''."""
        settings = self._settings
        return session.key(
            "", session.from_headers(headers, settings.session_headers, settings.session_cookie)
        )

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        """Decide one request. `cluster` is what the route chose; only its endpoints are candidates."""
        protocol = protocols.find(headers.get(":method", "POST"), path)
        if protocol is None:
            return Steered("passed")
        length = max(announced_bytes(headers) or 0, len(body))
        if length > self._retry_bytes:
            self.tallies.not_retriable += 1
        try:
            request = self._read(protocol, cluster, path, headers, body)
        except UnreadableRequestError as error:
            self.tallies.unreadable[protocol.name, error.reason] += 1
            return self._told(protocol.name, Steered(error.reason), "unreadable")
        if isinstance(request, Steered):
            return self._told(protocol.name, request)
        self._recall.saw(cluster, path, request, length)
        return self._told(protocol.name, _so_far(self._room.arrive(request, now)))

    def consider(
        self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> Considered | Steered:
        """What `steer` would do, or why there would be no decision; nothing is booked."""
        protocol = protocols.find(headers.get(":method", "POST"), path)
        if protocol is None:
            return Steered("passed")
        try:
            request = self._read(protocol, cluster, path, headers, body)
        except UnreadableRequestError as error:
            return Steered(error.reason)
        if isinstance(request, Steered):
            return request
        return self._room.consider(request, now) or Steered("no-endpoint")

    def _read(
        self, protocol: Protocol, cluster: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> RoutingRequest | Steered:
        """What the picker needs to know of the request. Raises UnreadableRequestError."""
        if cluster not in self._candidates:
            return Steered("unknown-cluster")
        prompt = protocol.parse(protocols.Call(path, headers, body, self._reading))
        return self._request(cluster, prompt, headers, _times(prompt, body, announced_bytes(headers) or 0))

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
        return RoutingRequest(
            candidates=candidates,
            prompt_tokens=min(PROMPT_TOKENS_MAX, (tokens or 0) * times),
            blocks=self._hasher.blocks(hashed, root),
            tokens_per_block=settings.block_bytes / BYTES_PER_ID if exact else settings.tokens_per_block,
            output_limit=prompt.output_tokens,
            session=self._session(headers) or session.key("", prompt.session),
            streamed=prompt.streamed,
            model=prompt.model or headers.get(settings.model_header, ""),
            lora=self._lora(prompt.lora or prompt.model, model, candidates),
            workload_class=self._workload_class(headers),
            zone=settings.zone,
            grpc=cluster in self._grpc,
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


def _so_far(held: Held) -> Steered:
    return settled(held) if held.settled else Steered("held", held=held)


def _times(prompt: Prompt, body: bytes, announced: int) -> float:
    """How many times longer the whole body is than what was read of it, sent or not."""
    read = len(body) if prompt.read_bytes is None else prompt.read_bytes
    return max(announced, len(body), read) / read if read else 1.0
