from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.admission.refusal import Refusal
from ext_proc.duplex import DuplexStream, Rules
from ext_proc.gateway_reply import CHUNK_BYTES
from ext_proc.picker import Picker
from ext_proc.pools import Pools
from ext_proc.request import RoutingRequest
from ext_proc.steer import REFUSED, Steered, Steerer
from ext_proc.waiting import WaitingRoom
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.decision import Decision

CHAT = "/v1/chat/completions"
BODY = b'{"messages": [{"role": "user", "content": "' + b"x" * 100_000 + b'"}]}'
ADDRESSES = ("10.0.0.1:80", "10.0.0.2:80")
FLEET = Fleet(
    (
        Model(
            "m",
            (Version("v", 1, tuple(Endpoint(a, "m", "v", "p", Hardware("H100-80GB")) for a in ADDRESSES)),),
        ),
    )
)
DUPLEX, NONE, STREAMED = 4, 0, 1


class Site:
    """A picker, and exchanges with it."""

    def __init__(self, hold_seconds: float = 0, **chosen_settings: Any) -> None:
        chosen = PickerSettings(**chosen_settings)
        self.picker = Picker(chosen, FLEET.endpoints.values())
        self.room = WaitingRoom(self.picker, hold_seconds, 8)
        self.steerer = Steerer(chosen, FLEET, PrefixHasher(b"k", 256), self.picker, self.room)

    def stream(self, **rules: Any) -> DuplexStream:
        return DuplexStream(self.steerer, self.picker, Rules(Pools(FLEET), **rules))


def huge(address: str) -> RoutingRequest:
    """A prompt that keeps its endpoint busy for minutes."""
    return RoutingRequest((address,), 10_000_000, (), 64)


def header_map(**named: str) -> base_pb2.HeaderMap:
    keys = {key.replace("_", "-").replace("--", ":"): value for key, value in named.items()}
    return base_pb2.HeaderMap(
        headers=[base_pb2.HeaderValue(key=key, raw_value=value.encode()) for key, value in keys.items()]
    )


def request_headers(
    *, end: bool = False, subset: Any = None, answers: int = DUPLEX, path: str = CHAT, **named: str
) -> bytes:
    message = pb.ProcessingRequest()
    headers = header_map(__method="POST", __path=path, **named)
    message.request_headers.headers.CopyFrom(headers)
    message.request_headers.end_of_stream = end
    message.protocol_config.request_body_mode = DUPLEX
    message.protocol_config.response_body_mode = answers
    if subset is not None:
        message.metadata_context.filter_metadata["envoy.lb.subset_hint"][
            "x-gateway-destination-endpoint-subset"
        ] = subset
    return bytes(message.SerializeToString())


def body(side: str, data: bytes = b"", *, end: bool = False) -> bytes:
    part = pb.HttpBody(body=data, end_of_stream=end)
    return bytes(pb.ProcessingRequest(**{f"{side}_body": part}).SerializeToString())


def trailers(side: str, **named: str) -> bytes:
    part = pb.HttpTrailers(trailers=header_map(**named))
    return bytes(pb.ProcessingRequest(**{f"{side}_trailers": part}).SerializeToString())


def response_headers(status: str = "200", served: str = "", *, end: bool = False, **named: str) -> bytes:
    message = pb.ProcessingRequest()
    message.response_headers.headers.CopyFrom(header_map(__status=status, **named))
    message.response_headers.end_of_stream = end
    if served:
        message.metadata_context.filter_metadata["envoy.lb"]["x-gateway-destination-endpoint-served"] = served
    return bytes(message.SerializeToString())


def parsed(replies: Sequence[bytes]) -> list[pb.ProcessingResponse]:
    return [pb.ProcessingResponse.FromString(data) for data in replies]


def kinds(replies: Sequence[bytes]) -> list[str]:
    return [str(reply.WhichOneof("response")) for reply in parsed(replies)]


def streamed(replies: Sequence[bytes], side: str = "request") -> tuple[bytes, list[bool]]:
    """What is sent back of a body, and on which messages it ends."""
    parts = [
        getattr(reply, f"{side}_body").response.body_mutation.streamed_response
        for reply in parsed(replies)
        if reply.HasField(f"{side}_body")
    ]
    return b"".join(part.body for part in parts), [part.end_of_stream for part in parts]


def asked(stream: DuplexStream, **more: Any) -> Sequence[bytes]:
    assert not stream.receive(request_headers(**more), 1.0)  # held until the body is there
    return stream.receive(body("request", BODY, end=True), 1.0)


def test_answers_the_headers_with_the_pick_in_both_places_and_then_the_body_in_pieces() -> None:
    stream = Site().stream()
    assert not stream.receive(request_headers(), 1.0)
    assert not stream.receive(body("request", BODY[:70_000]), 1.0)
    replies = stream.receive(body("request", BODY[70_000:], end=True), 1.0)
    assert kinds(replies) == ["request_headers", "request_body", "request_body"]
    common = parsed(replies)[0].request_headers.response
    assert common.clear_route_cache
    (header,) = common.header_mutation.set_headers
    assert header.header.key == "x-gateway-destination-endpoint"
    assert header.append_action == header.OVERWRITE_IF_EXISTS_OR_ADD
    told = parsed(replies)[0].dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"]
    assert header.header.raw_value.decode() == told
    assert set(told.split(",")) == set(ADDRESSES)
    assert streamed(replies) == (BODY, [False, True])
    assert all(len(data) <= CHUNK_BYTES + 100 for data in replies)
    assert (stream.outcome, stream.done) == ("steered", False)


def test_what_comes_after_the_end_of_stream_is_ignored() -> None:
    stream = Site().stream()
    asked(stream)
    assert not stream.receive(body("request", b"", end=True), 1.1)  # Envoy may tell it twice
    assert not stream.receive(body("request", b"more"), 1.1)
    assert not stream.receive(request_headers(), 1.1)
    assert kinds(stream.receive(response_headers(), 1.2)) == ["response_headers"]


def test_a_body_that_trailers_end_has_no_end_of_stream_of_its_own() -> None:
    stream = Site().stream()
    stream.receive(request_headers(), 1.0)
    stream.receive(body("request", BODY), 1.0)
    replies = stream.receive(trailers("request"), 1.0)
    assert kinds(replies) == ["request_headers", "request_body", "request_body", "request_trailers"]
    assert streamed(replies) == (BODY, [False, False])
    assert not stream.receive(trailers("request"), 1.0)


def test_decides_a_body_that_is_too_long_from_its_beginning_and_passes_the_rest_on() -> None:
    stream = Site().stream(body_max=50_000)
    stream.receive(request_headers(), 1.0)
    first = stream.receive(body("request", BODY[:60_000]), 1.0)
    assert kinds(first) == ["request_headers", "request_body"]
    assert stream.outcome == "steered"
    last = stream.receive(body("request", BODY[60_000:], end=True), 1.0)
    assert streamed([*first, *last]) == (BODY, [False, True])


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        (request_headers(end=True), "steered-unread"),
        (request_headers(path="/v2/repository/index"), "steered-unread"),
        (
            request_headers(
                path="/inference.GRPCInferenceService/ModelStreamInfer", content_type="application/grpc"
            ),
            "steered-early",
        ),
    ],
)
def test_what_is_not_read_is_decided_from_the_headers_and_passes_as_it_comes(
    headers: bytes, outcome: str
) -> None:
    stream = Site().stream()
    assert kinds(stream.receive(headers, 1.0)) == ["request_headers"]
    assert stream.outcome == outcome
    if b"\x18\x01" not in headers:  # no end of stream
        replies = stream.receive(body("request", b"part"), 1.0)
        assert streamed(replies) == (b"part", [False])


def test_a_body_that_cannot_be_read_is_the_engines_to_refuse() -> None:
    stream = Site().stream()
    stream.receive(request_headers(), 1.0)
    replies = stream.receive(body("request", b"{", end=True), 1.0)
    assert kinds(replies) == ["request_headers", "request_body"]
    assert stream.decision is not None


@pytest.mark.parametrize(
    "subset", [[ADDRESSES[1]], ADDRESSES[1], f" {ADDRESSES[1]},10.9.9.9:80", [ADDRESSES[1], ""]]
)
def test_the_subset_is_a_list_or_a_text_with_commas(subset: Any) -> None:
    for _ in range(4):
        stream = Site().stream()
        asked(stream, subset=subset)
        assert stream.decision is not None
        assert stream.decision.endpoints == (ADDRESSES[1],)


@pytest.mark.parametrize("subset", [[], "", ["10.9.9.9:80"], "10.9.9.9:80", 7, [7]])
@pytest.mark.parametrize("end", [True, False])
def test_a_subset_without_endpoints_of_ours_is_a_503(subset: Any, end: bool) -> None:
    stream = Site().stream()
    replies = stream.receive(request_headers(end=end, subset=subset), 1.0) or stream.receive(
        body("request", BODY, end=True), 1.0
    )
    (answer,) = parsed(replies)
    assert answer.immediate_response.status.code == 503
    sent = {h.header.key: h.header.raw_value for h in answer.immediate_response.headers.set_headers}
    assert sent["x-llm-d-request-dropped-reason"] == b"rejected-no-endpoints"
    assert stream.done
    assert not stream.receive(body("request", b"", end=True), 1.0)


def test_the_ledger_closes_with_the_answer_and_learns_from_it() -> None:
    site = Site()
    stream = site.stream()
    asked(stream)
    assert site.picker.in_flight == 1
    assert stream.decision is not None
    picked = stream.decision.endpoints[0]
    told = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 50}}
    usage = b"data: " + json.dumps({"usage": told}).encode() + b"\n\n"
    assert kinds(stream.receive(response_headers(served=picked), 1.1)) == ["response_headers"]
    assert streamed(stream.receive(body("response", b"data: 1\n\n"), 2.0), "response") == (
        b"data: 1\n\n",
        [False],
    )
    replies = stream.receive(body("response", usage, end=True), 3.0)
    assert streamed(replies, "response") == (usage, [True])
    assert (stream.done, stream.served, site.picker.in_flight) == (True, picked, 0)
    assert site.picker.traffic(0.0)[picked].match_ratio == pytest.approx(0.5)
    assert not stream.receive(body("response", b"", end=True), 3.0)


def test_follows_a_request_that_another_endpoint_serves() -> None:
    site = Site()
    stream = site.stream()
    asked(stream)
    assert stream.decision is not None
    other = stream.decision.endpoints[1]
    stream.receive(response_headers(served=other), 1.1)
    traffic = site.picker.traffic(0.0)
    assert {a: traffic[a].in_flight for a in stream.decision.endpoints} == {
        stream.decision.endpoints[0]: 0,
        other: 1,
    }


def test_answers_end_with_their_headers_or_trailers_too() -> None:
    for last in (response_headers(end=True), trailers("response")):
        site = Site()
        stream = site.stream()
        asked(stream)
        assert len(stream.receive(last, 2.0)) == 1
        assert (stream.done, site.picker.in_flight) == (True, 0)


def test_two_failures_in_a_row_eject_the_endpoint() -> None:
    site = Site()
    for now in (1.0, 1.1):
        stream = site.stream()
        asked(stream, subset=[ADDRESSES[0]])
        stream.receive(response_headers("503", ADDRESSES[0], end=True), now)
    for _ in range(5):
        stream = site.stream()
        asked(stream)
        assert stream.decision is not None
        assert stream.decision.endpoints == (ADDRESSES[1],)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("status", "ejected"), [("14", True), ("0", False), ("3", False)])
def test_two_grpc_failures_in_a_row_eject_the_endpoint(at_once: bool, status: str, ejected: bool) -> None:
    site = Site()
    for now in (1.0, 1.1):
        stream = site.stream()
        asked(stream, subset=[ADDRESSES[0]])
        if at_once:
            stream.receive(response_headers(served=ADDRESSES[0], end=True, grpc_status=status), now)
        else:
            stream.receive(response_headers(served=ADDRESSES[0]), now)
            stream.receive(trailers("response", grpc_status=status), now)
        assert (stream.done, site.picker.in_flight) == (True, 0)
    assert site.picker.endpoints[ADDRESSES[0]].usable(1.2) is not ejected


@pytest.mark.parametrize("answers", [NONE, STREAMED])
def test_answers_that_need_not_be_sent_back_are_not(answers: int) -> None:
    site = Site()
    stream = site.stream()
    asked(stream, answers=answers)
    stream.receive(response_headers(), 1.1)
    if answers == STREAMED:
        (reply,) = parsed(stream.receive(body("response", b"data", end=True), 1.2))
        assert reply.HasField("response_body")
        assert not reply.response_body.response.HasField("body_mutation")
        assert stream.done
    stream.end(2.0)
    assert site.picker.in_flight == 0


@pytest.mark.parametrize("cut_after", range(5))
def test_an_exchange_that_ends_anywhere_leaves_nothing_in_the_ledger(cut_after: int) -> None:
    site = Site()
    stream = site.stream()
    messages = [
        request_headers(),
        body("request", BODY, end=True),
        response_headers(),
        body("response", b"data: 1\n\n"),
        body("response", b"", end=True),
    ]
    for data in messages[:cut_after]:
        stream.receive(data, 1.0)
    stream.end(2.0)
    stream.end(2.0)
    assert (site.picker.in_flight, stream.done) == (0, True)
    assert not stream.receive(messages[-1], 2.0)


def test_a_request_that_is_held_is_answered_when_it_goes() -> None:
    site = Site(hold_seconds=60)
    full = [site.picker.pick(huge(address), 1.0) for address in ADDRESSES]
    stream = site.stream()
    assert not asked(stream)
    assert stream.waits
    assert stream.held is not None
    free(site, full)
    site.room.dispatch(1.2)
    assert stream.held.settled
    replies = stream.go(stream.held, 1.2)
    assert streamed(replies) == (BODY, [False, True])
    assert stream.decision is not None
    stream.end(2.0)
    assert site.picker.in_flight == 0


def test_what_a_held_request_got_is_taken_back_where_nobody_was_told() -> None:
    site = Site(hold_seconds=60)
    full = [site.picker.pick(huge(address), 1.0) for address in ADDRESSES]
    stream = site.stream()
    asked(stream)
    free(site, full)
    site.room.dispatch(1.2)
    assert site.picker.in_flight == 1
    stream.end(1.3)
    assert site.picker.in_flight == 0


def test_nothing_is_learned_of_a_held_request_that_nobody_was_told_where_answers_are_not_shown() -> None:
    site = Site(hold_seconds=60)
    full = [site.picker.pick(huge(address), 1.0) for address in ADDRESSES]
    stream = site.stream()
    asked(stream, answers=NONE)
    free(site, full)
    before = site.picker.known_blocks
    site.room.dispatch(1.2)
    assert stream.held is not None
    assert stream.held.settled
    stream.end(1.3)
    assert (site.picker.in_flight, site.picker.known_blocks) == (0, before)


def test_an_open_exchange_is_not_given_up_for_its_silence() -> None:
    site = Site(silence_seconds=5)
    stream = site.stream()
    asked(stream)
    stream.attend(8.0)
    assert site.picker.expire(10.0) == 0
    assert site.picker.expire(20.0) == 1


def test_test_headers_count_only_where_they_are_switched_on() -> None:
    for on in (False, True):
        stream = Site().stream(test_headers=on)
        asked(stream, test_epp_endpoint_selection="10.0.0.2, 10.7.7.7")
        assert stream.decision is not None
        assert (len(stream.decision.endpoints) == 1) is on
        (reply,) = parsed(stream.receive(response_headers(served=ADDRESSES[1]), 1.1))
        told = [h.header.key for h in reply.response_headers.response.header_mutation.set_headers]
        assert told == (["x-conformance-test-served-endpoint"] if on else [])


MESSAGES = st.one_of(
    st.builds(request_headers, end=st.booleans(), subset=st.sampled_from([None, [], [ADDRESSES[0]], "a,b"])),
    st.just(request_headers(path="/other", answers=NONE)),
    st.builds(
        body,
        st.sampled_from(["request", "response"]),
        st.sampled_from(
            [b"", b"{", BODY, b"x" * 130_000, b'{"usage": {{', b'"usage": {"completion_tokens": -1}']
        ),
        end=st.booleans(),
    ),
    st.builds(
        trailers, st.sampled_from(["request", "response"]), grpc_status=st.sampled_from(["", "0", "14", "x"])
    ),
    st.builds(
        response_headers,
        st.sampled_from(["200", "503", "", "abc"]),
        st.sampled_from(["", ADDRESSES[0], ADDRESSES[1], "10.9.9.9:80"]),
        end=st.booleans(),
    ),
    st.just(bytes(pb.ProcessingRequest().SerializeToString())),
    st.binary(max_size=30),
)


def kind_of(data: bytes) -> str:
    try:
        return str(pb.ProcessingRequest.FromString(data).WhichOneof("request"))
    except DecodeError:
        return ""


def after_an_end(replies: Sequence[pb.ProcessingResponse]) -> list[str]:
    """Of all replies of an exchange, those that come after their side's end of stream."""
    ended: set[str] = set()
    late = []
    for reply in replies:
        kind = str(reply.WhichOneof("response"))
        side, _, part = kind.partition("_")
        if kind in ended:
            late.append(kind)
        if part == "trailers":
            ended |= {f"{side}_body", kind}
        elif part == "body" and getattr(reply, kind).response.body_mutation.streamed_response.end_of_stream:
            ended.add(kind)
    return late


EXCHANGES = st.one_of(
    st.lists(MESSAGES, max_size=12),
    st.lists(MESSAGES, max_size=12).map(lambda rest: [request_headers(), body("request", BODY), *rest]),
)


@settings(max_examples=300)
@given(messages=EXCHANGES, hold=st.booleans(), settle=st.booleans())
def test_whatever_comes_no_exception_no_reply_too_many_and_nothing_left_behind(
    messages: list[bytes], hold: bool, settle: bool
) -> None:
    site = Site(hold_seconds=60 if hold else 0)
    busy = [site.picker.pick(huge(address), 0.0) for address in ADDRESSES] if hold else []
    stream = site.stream(test_headers=True)
    replies: list[bytes] = []
    for now, data in enumerate(messages, start=1):
        was_done, before = stream.done, len(replies)
        replies += stream.receive(data, float(now))
        if stream.waits and stream.held is not None and settle:
            free(site, busy)
            site.room.dispatch(float(now))
            replies += stream.go(stream.held, float(now))
        assert not was_done or len(replies) == before
    sent, got = Counter(map(kind_of, messages)), Counter(kinds(replies))
    for kind in ("request_headers", "request_trailers", "response_headers", "response_trailers"):
        assert got[kind] <= sent[kind]
    assert got["immediate_response"] <= 1
    assert not after_an_end(parsed(replies))
    if stream.held is not None:
        site.room.leave(stream.held)
    stream.end(100.0)
    free(site, busy)
    assert (site.picker.in_flight, len(site.room)) == (0, 0)


def free(site: Site, busy: Sequence[Decision | None]) -> None:
    for decision in busy:
        if decision is not None:
            site.picker.cancel(decision.id, 1.0)


class Recording:
    """A decider that turns everything away, and remembers the headers it was shown."""

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    def wants_body(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", CHAT)

    def decide_early(
        self, cluster: str, headers: Mapping[str, str], now: float, among: object = None
    ) -> Steered | None:
        assert (cluster, now, among) == ("m/v", 1.0, None)
        self.headers = headers
        return None

    def decide_unread(
        self, cluster: str, headers: Mapping[str, str], now: float, among: object = None
    ) -> Steered:
        raise AssertionError((cluster, headers, now, among))

    def steer(
        self,
        cluster: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        now: float,
        among: object = None,
    ) -> Steered:
        assert (cluster, path, body, now, among) == ("m/v", CHAT, BODY, 1.0, None)
        assert headers is self.headers
        return Steered(REFUSED, refused=Refusal("saturated", 3, "m", 0))


def test_a_request_that_is_turned_away_is_answered_in_the_protocols_words() -> None:
    site, decider = Site(), Recording()
    stream = DuplexStream(decider, site.picker, Rules(Pools(FLEET)))
    (answer,) = parsed(asked(stream))
    assert answer.immediate_response.status.code == 429
    sent = {h.header.key: h.header.raw_value for h in answer.immediate_response.headers.set_headers}
    assert sent["x-llm-d-request-dropped-reason"] == b"rejected-saturated"
    assert sent["retry-after"] == b"3"
    assert stream.done
    assert (stream.outcome, stream.refused is not None) == (REFUSED, True)


def test_older_names_of_the_protocols_headers_are_shown_under_the_present_ones() -> None:
    decider = Recording()
    stream = DuplexStream(decider, Site().picker, Rules(Pools(FLEET)))
    stream.receive(request_headers(x_slo_ttft_ms="250"), 1.0)
    assert decider.headers["x-llm-d-slo-ttft-ms"] == "250"


def test_a_sessions_next_turn_is_decided_from_its_headers_here_too() -> None:
    site = Site(session_fast_path=True)
    headers = request_headers(x_session_id="s", content_length=str(len(BODY)))
    first = site.stream()
    first.receive(headers, 1.0)
    first.receive(body("request", BODY, end=True), 1.0)
    assert first.decision is not None
    first.receive(response_headers(served=first.decision.endpoints[0], end=True), 2.0)
    second = site.stream()
    replies = second.receive(headers, 3.0)
    assert kinds(replies) == ["request_headers"]
    assert second.decision is not None
    assert second.decision.endpoints[0] == first.decision.endpoints[0]
    assert second.outcome == "steered-early"
    assert streamed(second.receive(body("request", BODY, end=True), 3.0)) == (BODY, [False, True])
