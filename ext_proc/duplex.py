"""One request's exchange with a gateway whose endpoint picker we are, without I/O: a message in, replies out.

The gateway sends everything, both ways, and goes on with what it gets back (FULL_DUPLEX_STREAMED). So the
headers are answered once the endpoint is known, which takes the body unless they are enough, and then the
body is sent back, cut into messages of a size that Envoy takes. Of the answer every part is answered as it
comes. There is no access log of ours here: the answer's parts close the ledger. What comes after a
direction's end of stream is ignored, since Envoy may tell it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError

from ext_proc import gateway_reply, inference_headers, opening, reply
from ext_proc.answer import Answer
from ext_proc.steer import settled
from ext_proc.stream import EARLY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ext_proc.admission.refusal import Refusal
    from ext_proc.decision import Decision
    from ext_proc.pools import Pools
    from ext_proc.steer import Steered
    from ext_proc.waiting import Held

GRPC_STATUS = "grpc-status"
"""In an answer's trailers, or in its headers where nothing comes after them: how a gRPC call ended."""

TEST_SELECTION_HEADER = "test-epp-endpoint-selection"
"""Request header by which conformance tests choose endpoints."""


class Decider(Protocol):
    """What an exchange asks; `ext_proc.steer.Steerer` answers. `among`: the only endpoints allowed."""

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a request like this is decided from its body."""

    def decide_early(
        self, cluster: str, headers: Mapping[str, str], now: float, among: Collection[str] | None = None
    ) -> Steered | None:
        """Decide one request from its headers, before its body; None where that takes the body."""

    def decide_unread(
        self, cluster: str, headers: Mapping[str, str], now: float, among: Collection[str] | None = None
    ) -> Steered:
        """Decide one request by load alone, and at once."""

    def steer(
        self,
        cluster: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now: float,
        among: Collection[str] | None = None,
    ) -> Steered:
        """Decide one request."""


class News(Protocol):
    """Who is told what becomes of requests; `ext_proc.picker.Picker` listens."""

    def endpoint_at(self, address: str) -> str:
        """The endpoint that answers at an address that Envoy dialled."""

    def running(self, id_: str, now: float, *, endpoint: str = "", attempts: int = 1) -> bool:
        """The request is at `endpoint`."""

    def first_token(self, id_: str, at: float) -> bool:
        """Its first token came at `at`."""

    def cancel(self, id_: str, now: float) -> None:
        """It will not come."""

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
        """It is over."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every exchange with the gateways that ask at one address."""

    pools: Pools
    cluster: str = ""  # that this address is for, '' for any
    body_max: int = 8 << 20  # bytes that are gathered; a longer body is decided from its beginning
    test_headers: bool = False  # obey and answer the headers of the conformance tests


class DuplexStream:
    """One exchange. Once `done`, nothing more may be sent; `outcome` says in a word what became of it.

    Where `held` is there and not `decision`, the next thing to do is to wait until that is settled, and then
    to send what `go` gives. Whoever drives it calls `end` at last, whatever happened.
    """

    def __init__(self, decider: Decider, news: News, rules: Rules) -> None:
        self._decider = decider
        self._news = news
        self._rules = rules
        self.headers: dict[str, str] = {}
        self.cluster = ""
        self._opened = False  # the headers came,
        self._early = False  # and were enough
        self._among: tuple[str, ...] | None = None
        self._gathered: list[bytes] = []  # of the body, while nothing is decided
        self._gathered_bytes = 0
        self._body_over = False  # its end of stream came,
        self._trailers = False  # or trailers did, which end it, too
        self._answer = Answer()
        self._answer_back = self._answer_shown = True
        self._closed = False  # the ledger has heard of the end
        self.done = False
        self.outcome = "aborted"
        self.decision: Decision | None = None
        self.held: Held | None = None
        self.refused: Refusal | None = None
        self.served = ""  # by whom, as the gateway says

    @property
    def waits(self) -> bool:
        """Whether the request is held and was not answered yet."""
        return self.held is not None and not self.done and self.decision is None

    def receive(self, data: bytes, now: float) -> Sequence[bytes]:
        """The replies to one message; none where it deserves none yet, or any more."""
        if self.done:
            return ()
        try:
            message = pb.ProcessingRequest.FromString(data)
        except DecodeError:
            return self._over("undecodable")
        kind = message.WhichOneof("request")
        if kind == "request_headers":
            return self._on_request_headers(message, now)
        if not self._opened or kind is None:
            return self._over("unexpected")
        if kind == "request_body":
            return self._on_request_body(message.request_body, now)
        if kind == "request_trailers":
            return self._on_request_trailers(now)
        self._hear_who_serves(message, now)
        if kind == "response_headers":
            return self._on_response_headers(message.response_headers, now)
        if kind == "response_body":
            return self._on_response_body(message.response_body, now)
        self._answer.ended(opening.trailers_of(message.response_trailers).get(GRPC_STATUS, ""))
        return self._answer_over(now, (gateway_reply.TRAILERS["response"],))

    def go(self, held: Held, now: float) -> Sequence[bytes]:
        """The replies that are due once the request that was held is settled."""
        return self._reply(settled(held), now)

    def attend(self, now: float) -> None:
        """The exchange is open, so the request is not over: its ledger entry must not be given up."""
        if self.decision is not None and not self._closed:
            listed = self.decision.endpoints  # which the gateway walks in order
            attempts = 1 + (listed.index(self.served) if self.served in listed else 0)
            self._news.running(self.decision.id, now, endpoint=self.served, attempts=attempts)

    def end(self, now: float) -> None:
        """The exchange is over, in order or not; a request that is not, was cut."""
        self.done = True
        decision = self.decision or (self.held.decision if self.held else None)
        if decision is None or self._closed:
            return
        self._closed = True
        if self.decision is None or (self._answer.status == 0 and self._answer_shown):
            # Nobody was told, or no answer came: the client left, or the gateway did not obey.
            self._news.cancel(decision.id, now)
        else:
            # Where answers are not shown, all that can be said is that this one may have been.
            self._finish(decision, now, cut=self._answer_shown)

    def _on_request_headers(self, message: pb.ProcessingRequest, now: float) -> Sequence[bytes]:
        if self._opened:
            return ()  # told twice
        self._opened = True
        headers = self.headers = opening.request_headers_of(message)
        inference_headers.add_present_names(headers)
        self._answer_back = opening.wants_answers_back(message)
        self._answer_shown = opening.hears_answers(message)
        self._among = opening.subset_of(message)
        pools = self._rules.pools
        self.cluster = pools.meant(
            opening.cluster_of(message),
            self._rules.cluster,
            self._among,
            grpc=headers.get("content-type", "").startswith("application/grpc"),
        )
        if self._rules.test_headers and (chosen := headers.get(TEST_SELECTION_HEADER)):
            self._among = pools.selected(self.cluster, opening.split(chosen))
        if message.request_headers.end_of_stream:
            self._body_over = True
            return self._take(self._unread(now), now)
        early = self._decider.decide_early(self.cluster, headers, now, self._among)
        if early is not None:
            self._early = True
            return self._take(early, now)
        if not self._decider.wants_body(headers.get(":method", ""), headers.get(":path", "")):
            return self._take(self._unread(now), now)
        return ()

    def _on_request_body(self, part: pb.HttpBody, now: float) -> Sequence[bytes]:
        if self._body_over:
            return ()
        self._body_over = part.end_of_stream or part.end_of_stream_without_message
        if self.decision is not None:
            return tuple(gateway_reply.chunks("request", part.body, end=self._body_over))
        self._gathered.append(part.body)
        self._gathered_bytes += len(part.body)
        if self.held is None and (self._body_over or self._gathered_bytes > self._rules.body_max):
            return self._decide(now)
        return ()

    def _on_request_trailers(self, now: float) -> Sequence[bytes]:
        if self._trailers:
            return ()
        self._trailers = True
        body_was_over, self._body_over = self._body_over, True
        if self.decision is not None:
            return (gateway_reply.TRAILERS["request"],)
        return () if body_was_over or self.held is not None else self._decide(now)

    def _decide(self, now: float) -> Sequence[bytes]:
        headers = self.headers
        body = b"".join(self._gathered)
        self._gathered = [body]
        steered = self._decider.steer(self.cluster, headers.get(":path", ""), headers, body, now, self._among)
        return self._take(steered, now)

    def _unread(self, now: float) -> Steered:
        return self._decider.decide_unread(self.cluster, self.headers, now, self._among)

    def _take(self, steered: Steered, now: float) -> Sequence[bytes]:
        if steered.held is not None:
            self.held = steered.held
            return ()
        return self._reply(steered, now)

    def _reply(self, steered: Steered, now: float) -> Sequence[bytes]:
        """Name the endpoint, and send back what was gathered; or say that there is none."""
        self.outcome = steered.outcome
        if steered.refused is not None:
            self.refused = steered.refused
            answer = reply.refuse(steered.refused, self.headers, endpoint_picker=True)
            return self._over(self.outcome, answer)
        if steered.unreadable:  # that is for the engine to say, so it needs one
            steered = self._unread(now)
        if steered.decision is None:
            refusal = gateway_reply.refused(
                gateway_reply.UNAVAILABLE, gateway_reply.NO_ENDPOINTS, "no endpoint can serve this request"
            )
            return self._over(self.outcome, refusal)
        if self._early:
            self.outcome = EARLY
        self.decision = steered.decision
        return (gateway_reply.destination(steered.decision), *self._what_was_gathered())

    def _what_was_gathered(self) -> list[bytes]:
        replies: list[bytes] = []
        if self._gathered:
            ends_here = self._body_over and not self._trailers
            replies += gateway_reply.chunks("request", b"".join(self._gathered), end=ends_here)
            self._gathered = []
        if self._trailers:
            replies.append(gateway_reply.TRAILERS["request"])
        return replies

    def _hear_who_serves(self, message: pb.ProcessingRequest, now: float) -> None:
        if self.served or self.decision is None:
            return
        self.served = self._news.endpoint_at(opening.served_of(message))
        self.attend(now)

    def _on_response_headers(self, headers: pb.HttpHeaders, now: float) -> Sequence[bytes]:
        found = opening.headers_of(headers)
        self._answer.began(found.get(":status", ""), found.get(GRPC_STATUS, ""))
        replies = (gateway_reply.served(self.served, tell=self._rules.test_headers),)
        return self._answer_over(now, replies) if headers.end_of_stream else replies

    def _on_response_body(self, part: pb.HttpBody, now: float) -> Sequence[bytes]:
        if self._answer.passed(part.body, now) and self.decision is not None:
            self._news.first_token(self.decision.id, now)
        over = part.end_of_stream or part.end_of_stream_without_message
        replies: Sequence[bytes] = (gateway_reply.RESPONSE_BODY_PASS,)
        if self._answer_back:
            replies = tuple(gateway_reply.chunks("response", part.body, end=over))
        return self._answer_over(now, replies) if over else replies

    def _answer_over(self, now: float, replies: Sequence[bytes]) -> Sequence[bytes]:
        self.done = True
        if self.decision is not None and not self._closed:
            self._closed = True
            self._finish(self.decision, now, cut=False)
        return replies

    def _finish(self, decision: Decision, now: float, *, cut: bool) -> None:
        answer = self._answer
        usage = answer.usage()
        self._news.finish(
            decision.id,
            now,
            endpoint=self.served or decision.endpoints[0],
            failed=answer.failed,
            answered=not cut and (answer.ok or not answer.status),
            decode_seconds=answer.decode_seconds,
            output_tokens=usage.output_tokens,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
        )

    def _over(self, outcome: str, *replies: bytes) -> Sequence[bytes]:
        self.outcome = outcome
        self.done = True
        return replies
