from __future__ import annotations

import json
from typing import Any

import pytest

from sim.apis.api import ApiError, Call, Incoming
from sim.apis.responses import RESPONSES


def read(fields: dict[str, Any]) -> Call:
    return RESPONSES.read(Incoming(json.dumps(fields).encode(), "m"))


def test_events_join_to_the_whole_response_and_are_numbered() -> None:
    call = read({"input": "hi", "stream": True})
    answer = RESPONSES.answer(call, "1f", 1)
    raw = answer.chunk(0, 1) + answer.chunk(1, 64) + answer.end(0)
    events = [json.loads(event.partition("data: ")[2]) for event in raw.decode().split("\n\n") if event]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    said = "".join(event.get("delta", "") for event in events)
    whole = json.loads(RESPONSES.answer(call, "1f", 1).body(0)[0])
    assert (
        said
        == whole["output"][0]["content"][0]["text"]
        == events[-1]["response"]["output"][0]["content"][0]["text"]
    )


def test_a_limit_makes_it_incomplete_and_the_cache_shows_in_usage() -> None:
    whole = json.loads(RESPONSES.answer(read({"input": "hi", "max_output_tokens": 3}), "1f", 1).body(2)[0])
    assert whole["status"] == "incomplete"
    assert whole["usage"]["output_tokens"] == 3
    assert whole["usage"]["input_tokens_details"]["cached_tokens"] == 2


@pytest.mark.parametrize(
    "fields", [{}, {"input": 5}, {"input": "a", "model": "x"}, {"input": "a", "max_output_tokens": 0}]
)
def test_refuses_what_it_cannot_answer(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        read(fields)
