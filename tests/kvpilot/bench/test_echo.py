from __future__ import annotations

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from kvpilot.bench.echo import Echo
from tests.ext_proc.messages import body, headers


def test_answers_both_messages_and_names_nobody() -> None:
    echo = Echo(early=False)
    first = pb.ProcessingResponse.FromString(echo.receive(headers(path="/v1/chat/completions")))
    assert first.HasField("request_headers")
    between = echo.done
    second = pb.ProcessingResponse.FromString(echo.receive(body(b"{}")))
    assert second.HasField("request_body")
    assert (between, echo.done) == (False, True)
    assert not first.HasField("dynamic_metadata")
    assert not second.HasField("dynamic_metadata")


def test_keeps_the_body_from_being_sent_where_the_picker_would() -> None:
    echo = Echo(early=True)
    answer = pb.ProcessingResponse.FromString(echo.receive(headers(path="/v1/chat/completions")))
    assert answer.HasField("mode_override")
    assert echo.done
