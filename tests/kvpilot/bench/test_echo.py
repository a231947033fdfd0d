from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.gateway_reply import CHUNK_BYTES
from kvpilot.bench.echo import DuplexEcho, Echo
from tests.ext_proc.messages import body, headers

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST_TRAILERS = pb.ProcessingRequest(request_trailers=pb.HttpTrailers()).SerializeToString()
RESPONSE_TRAILERS = pb.ProcessingRequest(response_trailers=pb.HttpTrailers()).SerializeToString()


def read(replies: Sequence[bytes]) -> list[pb.ProcessingResponse]:
    return [pb.ProcessingResponse.FromString(data) for data in replies]


def kinds(replies: Sequence[bytes]) -> list[str | None]:
    return [reply.WhichOneof("response") for reply in read(replies)]


def response_headers(*, end: bool = False) -> bytes:
    status = base_pb2.HeaderMap(headers=[base_pb2.HeaderValue(key=":status", raw_value=b"200")])
    message = pb.HttpHeaders(headers=status, end_of_stream=end)
    return bytes(pb.ProcessingRequest(response_headers=message).SerializeToString())


def response_body(data: bytes, *, end: bool) -> bytes:
    message = pb.ProcessingRequest(response_body=pb.HttpBody(body=data, end_of_stream=end))
    return bytes(message.SerializeToString())


def test_answers_both_messages_and_names_nobody() -> None:
    echo = Echo(early=False)
    (first,) = read(echo.receive(headers(path="/v1/chat/completions")))
    assert first.HasField("request_headers")
    between = echo.done
    (second,) = read(echo.receive(body(b"{}")))
    assert second.HasField("request_body")
    assert (between, echo.done) == (False, True)
    assert not first.HasField("dynamic_metadata")
    assert not second.HasField("dynamic_metadata")


def test_keeps_the_body_from_being_sent_where_the_picker_would() -> None:
    echo = Echo(early=True)
    (answer,) = read(echo.receive(headers(path="/v1/chat/completions")))
    assert answer.HasField("mode_override")
    assert echo.done


def test_sends_a_gateway_its_request_back_once_it_is_there() -> None:
    echo = DuplexEcho()
    sent = bytes(range(256)) * 600
    assert not echo.receive(headers())
    assert not echo.receive(body(sent[:100_000], end=False))
    first, *parts = read(echo.receive(body(sent[100_000:])))
    assert first.HasField("request_headers")
    assert not first.HasField("dynamic_metadata")
    streamed = [part.request_body.response.body_mutation.streamed_response for part in parts]
    assert b"".join(part.body for part in streamed) == sent
    assert max(len(part.body) for part in streamed) == CHUNK_BYTES
    assert [part.end_of_stream for part in streamed] == [False, False, True]
    assert not echo.receive(body(b""))  # the end, told twice
    assert not echo.done


def test_answers_a_request_that_ends_in_its_headers_at_once() -> None:
    echo = DuplexEcho()
    assert kinds(echo.receive(headers("GET", end=True))) == ["request_headers"]
    assert kinds(echo.receive(response_headers(end=True))) == ["response_headers"]
    assert echo.done


def test_lets_trailers_end_a_request() -> None:
    echo = DuplexEcho()
    echo.receive(headers())
    echo.receive(body(b"{}", end=False))
    replies = echo.receive(REQUEST_TRAILERS)
    assert kinds(replies) == ["request_headers", "request_body", "request_trailers"]
    part = read(replies)[1].request_body.response.body_mutation.streamed_response
    assert (part.body, part.end_of_stream) == (b"{}", False)


@pytest.mark.parametrize("trailers", [False, True])
def test_sends_a_gateway_every_part_of_an_answer_back_until_its_end(trailers: bool) -> None:
    echo = DuplexEcho()
    echo.receive(headers())
    echo.receive(body(b"{}"))
    assert kinds(echo.receive(response_headers())) == ["response_headers"]
    first, second = read(
        (*echo.receive(response_body(b"a", end=False)), *echo.receive(response_body(b"b", end=not trailers)))
    )
    parts = [part.response_body.response.body_mutation.streamed_response for part in (first, second)]
    assert [(part.body, part.end_of_stream) for part in parts] == [(b"a", False), (b"b", not trailers)]
    assert echo.done is not trailers
    if trailers:
        assert kinds(echo.receive(RESPONSE_TRAILERS)) == ["response_trailers"]
    assert echo.done
