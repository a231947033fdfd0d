"""From an HTTP request to what the picker is asked: protocol, canonical prompt, hashes, session, caller.

Whatever cannot be understood is told apart, and left alone by those who ask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ext_proc import protocols, session
from ext_proc.early import Recall, announced_bytes
from ext_proc.protocols.tokens import BYTES_PER_ID
from ext_proc.request import RoutingRequest
from ext_proc.trust import NOBODY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.admission.door import Admission
    from ext_proc.picker import Picker
    from ext_proc.protocols import Protocol
    from ext_proc.request import Prompt, WorkloadClass
    from ext_proc.trust import Caller, Trust
    from fleet.model import Fleet
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings

PROMPT_TOKENS_MAX = 1e7
"""Of any model's context: what a content-length claims beyond it must not count as work."""


class Read(NamedTuple):
    """A request that was read, and how long its whole body is, as far as anybody says."""

    request: RoutingRequest
    body_bytes: int


class Reader:
    """Reads requests for one fleet. `cluster` is always what the route chose."""

    def __init__(
        self,
        settings: PickerSettings,
        fleet: Fleet,
        hasher: PrefixHasher,
        picker: Picker,
        trust: Trust | None,
        admission: Admission | None,
    ) -> None:
        """Without `trust` nobody's word counts; without `admission` all requests are equally urgent."""
        self._settings = settings
        self._hasher = hasher
        self._picker = picker
        self._trust = trust
        self._admission = admission
        self._recall = Recall(settings.sessions_max if settings.session_fast_path else 0)
        self._reading = reading(settings)
        self._clusters = {
            cluster: (endpoints[0].model, tuple(endpoint.address for endpoint in endpoints))
            for cluster, endpoints in (*fleet.clusters.items(), *fleet.grpc_clusters.items())
            if endpoints
        }
        self._grpc = frozenset(fleet.grpc_clusters)

    def knows(self, cluster: str) -> bool:
        """Whether the cluster is one of the fleet's, with endpoints in it."""
        return cluster in self._clusters

    def model(self, cluster: str) -> str:
        """The model that a known cluster serves."""
        return self._clusters[cluster][0]

    def read(
        self,
        protocol: Protocol,
        cluster: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now: float,
    ) -> Read:
        """A request to a known cluster, from its body. Raises UnreadableRequestError."""
        prompt = protocol.parse(protocols.Call(path, headers, body, self._reading))
        caller = self._caller(headers)
        whole = max(announced_bytes(headers) or 0, prompt.whole_bytes, len(body))
        read = len(body) if prompt.read_bytes is None else prompt.read_bytes
        times = max(whole, read) / read if read else 1.0
        request = self._request(cluster, prompt, headers, times, caller)
        return Read(self._urgent(request, cluster, caller, now), whole)

    def remember(self, cluster: str, path: str, read: Read) -> None:
        """That request goes on: its session's next turn may be decided without a body."""
        self._recall.saw(cluster, path, read.request, read.body_bytes)

    def next_turn(
        self, cluster: str, path: str, headers: Mapping[str, str], now: float
    ) -> RoutingRequest | None:
        """A session's further turn in a known cluster, from its headers; None where it must be read."""
        length = announced_bytes(headers)
        if not self._settings.session_fast_path or length is None:
            return None
        caller = self._caller(headers)
        request = self._recall.next_turn(cluster, path, self._session(headers, caller), length)
        if request is None:
            return None
        request = replace(
            request,
            candidates=self._clusters[cluster][1],
            prompt_tokens=min(PROMPT_TOKENS_MAX, request.prompt_tokens),
            workload_class=self._workload_class(headers),
        )
        return self._urgent(request, cluster, caller, now)

    def unread(self, cluster: str, headers: Mapping[str, str], now: float) -> RoutingRequest:
        """A stream to a known cluster, which nobody reads."""
        caller = self._caller(headers)
        request = RoutingRequest(
            candidates=self._clusters[cluster][1],
            prompt_tokens=0.0,  # nothing is asked yet
            blocks=(),
            tokens_per_block=self._settings.tokens_per_block,
            session=self._session(headers, caller),
            streamed=False,  # its first byte comes when the client has sent something: it times no prefill
            model=headers.get(self._settings.model_header, ""),
            workload_class=self._workload_class(headers),
            zone=self._settings.zone,
            grpc=cluster in self._grpc,
            tenant=caller.tenant,
        )
        return self._urgent(request, cluster, caller, now)

    def _request(
        self, cluster: str, prompt: Prompt, headers: Mapping[str, str], times: float, caller: Caller
    ) -> RoutingRequest:
        """What the picker is asked. The whole prompt is `times` as long as what was read of it."""
        settings = self._settings
        model, candidates = self._clusters[cluster]
        exact = prompt.tokens is not None
        tokens = prompt.tokens if exact else len(prompt.text) / settings.bytes_per_token
        scope = (model, prompt.model or model, prompt.lora, prompt.cache_salt, "ids" if exact else "")
        root = self._hasher.root(*scope, *([caller.tenant] if caller.tenant else ()))
        hashed = prompt.text[: settings.max_hashed_bytes] if prompt.cacheable else b""
        return RoutingRequest(
            candidates=candidates,
            prompt_tokens=min(PROMPT_TOKENS_MAX, (tokens or 0) * times),
            blocks=self._hasher.blocks(hashed, root),
            tokens_per_block=settings.block_bytes / BYTES_PER_ID if exact else settings.tokens_per_block,
            output_limit=prompt.output_tokens,
            session=self._session(headers, caller) or session.key(caller.tenant, prompt.session),
            streamed=prompt.streamed,
            model=prompt.model or headers.get(settings.model_header, ""),
            lora=self._lora(prompt.lora or prompt.model, model, candidates),
            workload_class=self._workload_class(headers),
            zone=settings.zone,
            grpc=cluster in self._grpc,
            tenant=caller.tenant,
        )

    def _urgent(self, request: RoutingRequest, cluster: str, caller: Caller, now: float) -> RoutingRequest:
        """The same request as urgent as its caller and its model make it."""
        if self._admission is None:
            return request
        model = self.model(cluster)
        priority = self._admission.priority(model, caller)
        deadline = self._admission.deadline(model, caller, now)
        if (priority, deadline) == (request.priority, request.deadline):
            return request
        return replace(request, priority=priority, deadline=deadline)

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        """Whom the request is for, as far as somebody trusted says so."""
        return NOBODY if self._trust is None else self._trust.caller(headers)

    def _session(self, headers: Mapping[str, str], caller: Caller) -> str:
        """The key of the session that the headers name, or ''."""
        settings = self._settings
        name = session.from_headers(headers, settings.session_headers, settings.session_cookie)
        return session.key(caller.tenant, name)

    def _lora(self, named: str, model: str, candidates: Sequence[str]) -> str:
        """The adapter that a request names in place of its model, or ''.

        Another name may also be one more for the model itself, and then it needs nothing loaded: only what
        engines list is an adapter.
        """
        return named if named != model and self._picker.knows_lora(named, candidates) else ""

    def _workload_class(self, headers: Mapping[str, str]) -> WorkloadClass:
        name = self._settings.class_header
        return "batch" if name and headers.get(name) == "batch" else "interactive"


def reading(settings: PickerSettings) -> protocols.Reading:
    """How the settings have requests read."""
    return protocols.Reading(
        bytes_max=settings.max_parsed_bytes,
        media_bytes=round(settings.media_tokens * settings.bytes_per_token),
        session_keys=tuple(tuple(key.split(".")) for key in settings.session_body_keys),
    )
