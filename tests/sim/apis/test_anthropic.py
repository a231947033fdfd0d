from __future__ import annotations

import json
from typing import Any

import pytest

from sim.apis import openai
from sim.apis.anthropic import MESSAGES
from sim.apis.api import ApiError, Call, Incoming

USER = [{"role": "user", "content": "hi"}]


def read(fields: dict[str, Any]) -> Call:
    return MESSAGES.read(Incoming(json.dumps(fields).encode(), "m"))


def test_events_join_to_the_whole_message() -> None:
    call = read({"messages": USER, "max_tokens": 9, "stream": True})
    answer = MESSAGES.answer(call, "1f", 1)
    raw = answer.chunk(0, 1) + answer.chunk(1, 9) + answer.end(4)
    events = [json.loads(event.partition("data: ")[2]) for event in raw.decode().split("\n\n") if event]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    said = "".join(event["delta"].get("text", "") for event in events if "delta" in event)
    whole = json.loads(answer.body(4)[0])
    assert said == whole["content"][0]["text"]
    assert whole["usage"]["cache_read_input_tokens"] == 4
    assert whole["usage"]["input_tokens"] + 4 == call.prompt.tokens


def test_its_prompts_are_the_chats_so_that_they_share_a_cache() -> None:
    system = {"role": "system", "content": "Be kind."}
    chat = openai.CHAT.read(Incoming(json.dumps({"messages": [system, *USER]}).encode(), "m"))
    assert read({"messages": USER, "system": "Be kind.", "max_tokens": 1}).prompt == chat.prompt


@pytest.mark.parametrize("fields", [{}, {"messages": USER}, {"messages": [], "max_tokens": 1}])
def test_refuses_in_anthropics_words(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        read(fields)
    told = json.loads(MESSAGES.error(caught.value))
    assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
