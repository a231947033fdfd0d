"""One request's ext_proc exchange, without I/O: a message in, a reply out, until it is done.

Envoy sends the headers, then the body (whole, or its beginning), unless the headers were enough to decide.
Each gets exactly one reply; after the last one the stream is done and the handler must return, since an open
one stays for the whole answer. A request that is held gets word to wait before its reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError

from ext_proc import opening, reply
from ext_proc.steer import settled
from ext_proc.trust import RequestHeaders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.admission.refusal import Refusal
    from ext_proc.decision import Decision
    from ext_proc.steer import Steered
    from ext_proc.waiting import Held


EARLY = "steered-early"
"""The outcome of a request that was decided from its headers."""


class Decider(Protocol):
    """What a stream asks; `ext_proc.steer.Steerer` answers."""

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""

    def decide_early(self, cluster: str, headers: Mapping[str, str], now: float) -> Steered | None:
        """Decide one request from its headers, before its body; None where that takes the body."""

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        """Decide one request."""


class PickStream:
    """One exchange. Once `done`, `outcome` says in a word what became of the request.

    While it is not done and `held` is there, the next thing to do is to wait until that is settled, and then
    to send what `go` gives.
    """

    def __init__(self, decider: Decider, longest_hold: float) -> None:
        """A request may be held for `longest_hold` seconds."""
        self._decider = decider
        self._longest_hold = longest_hold
        self._headers = RequestHeaders()
        self._cluster = ""
        self._early = False
        self.done = False
        self.outcome = "aborted"
        self.decision: Decision | None = None
        self.held: Held | None = None
        self.refused: Refusal | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers by name in lower case; empty until they came."""
        return self._headers

    @property
    def cluster(self) -> str:
        """The cluster that the route chose; '' where Envoy did not say."""
        return self._cluster

    def receive(self, data: bytes, now: float) -> bytes | None:
        """The reply to one message of Envoy's, or None where it deserves none (then it is done)."""
        try:
            message = pb.ProcessingRequest.FromString(data)
        except DecodeError:
            return self._end("undecodable", None)
        kind = message.WhichOneof("request")
        if kind == "request_headers":
            return self._on_headers(message, now)
        if kind == "request_body":
            return self._on_body(message.request_body.body, now)
        return self._end("unexpected", None)

    def _on_headers(self, message: pb.ProcessingRequest, now: float) -> bytes | None:
        headers = message.request_headers
        self._headers = opening.request_headers_of(message)
        self._cluster = opening.cluster_of(message)
        if headers.end_of_stream:
            return self._end("passed", reply.HEADERS_PASS)
        steered = self._decider.decide_early(self._cluster, self._headers, now)
        if steered is not None:
            self._early = True
            return self._take(steered)
        method, path = self._headers.get(":method", ""), self._headers.get(":path", "")
        if not self._decider.wants_body(method, path):
            return self._end("passed", reply.HEADERS_PASS_ALL)
        return reply.HEADERS_PASS

    def _on_body(self, body: bytes, now: float) -> bytes | None:
        path = self._headers.get(":path", "")
        return self._take(self._decider.steer(self._cluster, path, self._headers, body, now))

    def _take(self, steered: Steered) -> bytes | None:
        if steered.held is not None:
            self.held = steered.held
            return reply.wait(self._longest_hold)
        return self._reply(steered)

    def go(self, held: Held) -> bytes | None:
        """The reply to the last message, once the request that was held is settled."""
        return self._reply(settled(held))

    def _reply(self, steered: Steered) -> bytes | None:
        decision = self.decision = steered.decision
        self.refused = steered.refused
        if steered.refused is not None:
            return self._end(steered.outcome, reply.refuse(steered.refused, self._headers))
        if self._early:
            answer = reply.HEADERS_PASS_ALL if decision is None else reply.headers_steered(decision)
            return self._end(EARLY if decision is not None else steered.outcome, answer)
        answer = reply.BODY_PASS if decision is None else reply.body_steered(decision)
        return self._end(steered.outcome, answer)

    def _end(self, outcome: str, answer: bytes | None) -> bytes | None:
        self.done = True
        self.outcome = outcome
        return answer
