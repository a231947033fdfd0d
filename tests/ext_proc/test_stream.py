from __future__ import annotations

import json
from typing import TYPE_CHECKING

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.admission.refusal import Refusal
from ext_proc.decision import Decision
from ext_proc.events import Placed
from ext_proc.reply import refuse
from ext_proc.request import RoutingRequest
from ext_proc.steer import Steered
from ext_proc.stream import PickStream
from ext_proc.trust import NO_EVIDENCE, Evidence, RequestHeaders
from ext_proc.waiting import Held
from fleet.names import HOLD_SLACK_SECONDS
from tests.ext_proc.messages import body, headers

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDPOINTS = ("10.0.0.1:80", "10.0.0.2:80")
PLACED = Placed("id-1", 0.0, RoutingRequest(ENDPOINTS, 10, (), 64), ENDPOINTS, 0, 0, 10, 10, 0.1)
LONGEST_HOLD = 20.0
DECISION = Decision("id-1", ENDPOINTS, 0.1, 0.0, (), "the lowest cost", PLACED)


class RecordingDecider:
    """Wants POST /chat, decides everything, and remembers what it was asked."""

    def __init__(self, answer: Steered, early: Steered | None = None) -> None:
        self.answer = answer
        self.early = early
        self.asked: list[tuple[str, str, dict[str, str], bytes, float]] = []
        self.headers: list[RequestHeaders] = []

    def wants_body(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", "/chat")

    def decide_early(self, cluster: str, headers: Mapping[str, str], now: float) -> Steered | None:
        assert (cluster, headers["x-session-id"], now) == ("llama/stable", "s", 1.0)
        return self.early

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        assert isinstance(headers, RequestHeaders)
        self.headers.append(headers)
        self.asked.append((cluster, path, dict(headers), body, now))
        return self.answer


def reply(data: bytes | None) -> pb.ProcessingResponse:
    assert data is not None
    return pb.ProcessingResponse.FromString(data)


def test_holds_the_headers_until_the_body_and_names_the_endpoints_in_metadata_only() -> None:
    decider = RecordingDecider(Steered("steered", DECISION))
    stream = PickStream(decider, LONGEST_HOLD)
    first = reply(stream.receive(headers(), 1.0))
    assert first.WhichOneof("response") == "request_headers"
    assert stream.outcome == "aborted"  # if it ended here
    second = reply(stream.receive(body(b"{}"), 2.0))
    assert second.WhichOneof("response") == "request_body"
    assert not second.request_body.response.HasField("header_mutation")
    metadata = {k: dict(v) for k, v in second.dynamic_metadata.items()}
    assert metadata == {
        "envoy.lb": {"x-gateway-destination-endpoint": "10.0.0.1:80,10.0.0.2:80"},
        "kvpilot": {"pick_id": "id-1"},
    }
    assert stream.done
    cluster, path, asked_headers, data, now = decider.asked[0]
    assert (cluster, path, data, now) == ("llama/stable", "/chat", b"{}", 2.0)
    assert asked_headers["x-session-id"] == "s"


def test_decides_from_the_beginning_of_a_body_that_is_too_long_to_be_sent_whole() -> None:
    decider = RecordingDecider(Steered("steered", DECISION))
    stream = PickStream(decider, LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    stream.receive(body(b"{", end=False), 1.0)
    assert (stream.done, stream.outcome) == (True, "steered")


def test_asks_for_patience_while_a_request_is_held_and_replies_when_it_goes() -> None:
    held = Held(PLACED.request, arrived=1.0)
    stream = PickStream(RecordingDecider(Steered("held", held=held)), LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    word = reply(stream.receive(body(b"{}"), 1.0))
    assert word.WhichOneof("response") is None
    assert word.override_message_timeout.ToTimedelta().total_seconds() == LONGEST_HOLD + HOLD_SLACK_SECONDS
    assert (stream.done, stream.held) == (False, held)
    held.settle(DECISION)
    answer = reply(stream.go(held))
    assert answer.WhichOneof("response") == "request_body"
    assert answer.dynamic_metadata["kvpilot"]["pick_id"] == "id-1"
    assert (stream.done, stream.outcome, stream.decision) == (True, "steered", DECISION)


def test_lets_a_held_request_pass_that_has_nowhere_to_go_any_more() -> None:
    held = Held(PLACED.request, arrived=1.0)
    stream = PickStream(RecordingDecider(Steered("held", held=held)), LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    stream.receive(body(b"{}"), 1.0)
    held.settle(None)
    assert not reply(stream.go(held)).HasField("dynamic_metadata")
    assert (stream.done, stream.outcome) == (True, "no-endpoint")


def test_lets_a_request_pass_that_nothing_can_be_decided_of() -> None:
    decider = RecordingDecider(Steered("not-json"))
    stream = PickStream(decider, LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    answer = reply(stream.receive(body(b"?"), 1.0))
    assert answer.WhichOneof("response") == "request_body"
    assert not answer.HasField("dynamic_metadata")
    assert (stream.done, stream.outcome) == (True, "not-json")


def assert_no_body_is_sent(answer: pb.ProcessingResponse) -> None:
    assert answer.WhichOneof("response") == "request_headers"
    mode = answer.mode_override
    assert answer.HasField("mode_override")
    assert (mode.request_body_mode, mode.response_body_mode) == (mode.NONE, mode.NONE)
    # Their default would be to send them, to a stream that is over.
    assert (mode.response_header_mode, mode.response_trailer_mode) == (mode.SKIP, mode.SKIP)


def test_what_the_headers_decide_is_answered_at_once_and_wants_no_body() -> None:
    decider = RecordingDecider(Steered("not-json"), early=Steered("steered", DECISION))
    stream = PickStream(decider, LONGEST_HOLD)
    answer = reply(stream.receive(headers(), 1.0))
    assert_no_body_is_sent(answer)
    assert answer.dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"] == "10.0.0.1:80,10.0.0.2:80"
    assert answer.dynamic_metadata["kvpilot"]["pick_id"] == "id-1"
    assert (stream.done, stream.outcome, stream.decision) == (True, "steered-early", DECISION)
    assert not decider.asked


def test_what_the_headers_decide_may_be_held_as_well() -> None:
    held = Held(PLACED.request, arrived=1.0)
    stream = PickStream(RecordingDecider(Steered("?"), early=Steered("held", held=held)), LONGEST_HOLD)
    assert reply(stream.receive(headers(), 1.0)).HasField("override_message_timeout")
    assert (stream.done, stream.held) == (False, held)
    held.settle(DECISION)
    assert_no_body_is_sent(reply(stream.go(held)))
    assert (stream.done, stream.outcome) == (True, "steered-early")


def test_what_the_headers_say_is_hopeless_passes_without_its_body() -> None:
    stream = PickStream(
        RecordingDecider(Steered("steered", DECISION), early=Steered("unknown-cluster")), LONGEST_HOLD
    )
    answer = reply(stream.receive(headers(), 1.0))
    assert_no_body_is_sent(answer)
    assert not answer.HasField("dynamic_metadata")
    assert (stream.done, stream.outcome, stream.decision) == (True, "unknown-cluster", None)


def test_what_is_not_read_is_not_gathered_either() -> None:
    stream = PickStream(RecordingDecider(Steered("steered", DECISION)), LONGEST_HOLD)
    assert_no_body_is_sent(reply(stream.receive(headers(path="/other"), 1.0)))


def test_is_done_after_the_headers_of_what_it_does_not_read() -> None:
    for data in (headers("GET"), headers(path="/other"), headers(end=True)):
        decider = RecordingDecider(Steered("steered", DECISION))
        stream = PickStream(decider, LONGEST_HOLD)
        assert reply(stream.receive(data, 1.0)).WhichOneof("response") == "request_headers"
        assert stream.done
        assert not decider.asked


@given(data=st.binary(max_size=60))
def test_never_raises_whatever_the_bytes(data: bytes) -> None:
    PickStream(RecordingDecider(Steered("steered", DECISION)), LONGEST_HOLD).receive(data, 1.0)


def test_ends_without_a_reply_on_a_message_it_never_asked_for() -> None:
    message = pb.ProcessingRequest(response_headers=pb.HttpHeaders()).SerializeToString()
    stream = PickStream(RecordingDecider(Steered("steered", DECISION)), LONGEST_HOLD)
    assert stream.receive(message, 1.0) is None
    assert (stream.done, stream.outcome) == (True, "unexpected")


REFUSAL = Refusal("saturated", 7, "llama", 0)


def test_a_refused_request_is_answered_in_place_of_the_model() -> None:
    stream = PickStream(RecordingDecider(Steered("refused", refused=REFUSAL)), LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    answer = reply(stream.receive(body(b"{}"), 2.0))
    immediate = answer.immediate_response
    assert immediate.status.code == 429
    told = {option.header.key: option.header.raw_value for option in immediate.headers.set_headers}
    assert told == {
        "retry-after": b"7",
        "x-kvpilot-reason": b"saturated",
        "content-type": b"application/json",
    }
    assert json.loads(immediate.body)["error"]["type"] == "rate_limit_error"
    assert not immediate.HasField("grpc_status")
    assert (stream.done, stream.outcome, stream.refused) == (True, "refused", REFUSAL)


def test_a_grpc_client_gets_a_status_and_an_endpoint_picker_says_why_in_its_own_words() -> None:
    data = refuse(REFUSAL, {"content-type": "application/grpc+proto"}, endpoint_picker=True)
    immediate = reply(data).immediate_response
    assert immediate.grpc_status.status == 8
    assert b"{" not in immediate.body
    told = {option.header.key: option.header.raw_value for option in immediate.headers.set_headers}
    assert told["x-llm-d-request-dropped-reason"] == b"rejected-saturated"
    assert "content-type" not in told


def test_a_request_that_is_refused_while_it_is_held_gets_the_same_answer() -> None:
    waiting = Held(PLACED.request, 1.0)
    stream = PickStream(RecordingDecider(Steered("held", held=waiting)), LONGEST_HOLD)
    stream.receive(headers(), 1.0)
    stream.receive(body(b"{}"), 1.0)
    waiting.settle(None, REFUSAL)
    answer = reply(stream.go(waiting))
    assert answer.immediate_response.status.code == 429
    assert (stream.done, stream.outcome) == (True, "refused")


def test_what_envoy_says_of_the_caller_reaches_whoever_decides() -> None:
    decider = RecordingDecider(Steered("steered", DECISION))
    for said in (False, True):
        message = pb.ProcessingRequest.FromString(headers())
        if said:
            san = message.attributes["envoy.filters.http.ext_proc"]
            san["connection.uri_san_peer_certificate"] = "spiffe://a"
            claims = message.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
            claims.update({"payload": {"org": "a", "rank": 7}})
        stream = PickStream(decider, LONGEST_HOLD)
        stream.receive(message.SerializeToString(), 1.0)
        stream.receive(body(b"{}"), 1.0)
    assert [asked.evidence for asked in decider.headers] == [
        NO_EVIDENCE,
        Evidence("spiffe://a", {"payload": {"org": "a", "rank": 7.0}}),
    ]
