"""From an HTTP request to a decision: parse, hash, find the session, pick.

Whatever cannot be understood is left alone and counted: Envoy then balances it by weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc import openai, session
from ext_proc.early import Recall, announced_bytes, never_half_closes
from ext_proc.request import RoutingRequest
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.decision import Decision
    from ext_proc.picker import Picker
    from ext_proc.request import WorkloadClass
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
    ) -> None:
        """`room` is the one in front of `picker`."""
        self._settings = settings
        self._hasher = hasher
        self._picker = picker
        self._room = room
        self._recall = Recall(settings.sessions_max if settings.session_fast_path else 0)
        self._candidates = {
            cluster: (endpoints[0].model, tuple(endpoint.address for endpoint in endpoints))
            for cluster, endpoints in fleet.clusters.items()
            if endpoints
        }

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""
        return method == "POST" and openai.speaks(path)

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
            prompt_tokens=self._recall.mean_prompt_tokens(cluster),
            blocks=(),
            tokens_per_block=self._settings.tokens_per_block,
            session=self._session(headers),
            streamed=False,  # its first byte comes when the client has sent something: it times no prefill
            workload_class=self._workload_class(headers),
            zone=self._settings.zone,
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
        if cluster not in self._candidates:
            return Steered("unknown-cluster")
        model, candidates = self._candidates[cluster]
        try:
            prompt = openai.parse(path, body)
        except UnreadableRequestError as error:
            return Steered(error.reason)
        root = self._hasher.root(model, prompt.model, prompt.cache_salt)
        unseen = _unseen(headers, body)
        request = RoutingRequest(
            candidates=candidates,
            prompt_tokens=min(
                PROMPT_TOKENS_MAX,
                len(prompt.text) * unseen / self._settings.bytes_per_token,
            ),
            blocks=self._hasher.blocks(prompt.text[: self._settings.max_hashed_bytes], root),
            tokens_per_block=self._settings.tokens_per_block,
            output_limit=prompt.output_tokens,
            session=self._session(headers) or session.key("", prompt.session),
            streamed=prompt.streamed,
            model=prompt.model,
            lora=self._lora(prompt.model, model, candidates),
            workload_class=self._workload_class(headers),
            zone=self._settings.zone,
        )
        self._recall.saw(cluster, path, request, len(body) * unseen)
        return _so_far(self._room.arrive(request, now))

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


def _so_far(held: Held) -> Steered:
    return settled(held) if held.settled else Steered("held", held=held)


def _unseen(headers: Mapping[str, str], body: bytes) -> float:
    """How many times longer the whole body is than the beginning of it that Envoy sent."""
    announced = announced_bytes(headers)
    return max(1.0, announced / len(body)) if body and announced is not None else 1.0
