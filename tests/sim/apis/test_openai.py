from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.apis import openai
from sim.apis.api import Answer, Api, ApiError, Call, Incoming
from sim.prompt import MAX_ANSWER_TOKENS

USER = [{"role": "user", "content": "hi"}]


def parse(fields: Any, *, chat: bool = True) -> Call:
    return read(json.dumps(fields).encode(), chat=chat)


def read(body: bytes, *, chat: bool) -> Call:
    return api(chat=chat).read(Incoming(body, "m"))


def api(*, chat: bool) -> Api:
    return openai.CHAT if chat else openai.COMPLETIONS


def answer_to(call: Call, *, chat: bool = True) -> Answer:
    return api(chat=chat).answer(call, "1f", 1_700_000_000)


def events(raw: bytes) -> list[dict[str, Any]]:
    lines = raw.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_limits_are_read_under_both_names_and_capped() -> None:
    assert parse({"messages": USER}).output_tokens == 64
    assert parse({"messages": USER, "max_tokens": 7}).output_tokens == 7
    assert parse({"messages": USER, "max_tokens": 7, "max_completion_tokens": 5}).output_tokens == 5
    assert parse({"messages": USER, "max_tokens": 10**9}).output_tokens == MAX_ANSWER_TOKENS


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ([], 400, None),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hi"}, 400, "messages"),
        ({"messages": USER, "max_tokens": 0}, 400, "max_tokens"),
        ({"messages": USER, "max_tokens": True}, 400, "max_tokens"),
        ({"messages": USER, "max_completion_tokens": "9"}, 400, "max_completion_tokens"),
        ({"messages": USER, "n": 2}, 400, "n"),
        ({"messages": USER, "n": [1]}, 400, "n"),
        ({"messages": USER, "model": "other"}, 404, "model"),
        ({"messages": USER, "model": {"a": []}}, 404, "model"),
    ],
)
def test_refuses_as_openai_does(fields: Any, status: int, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        parse(fields)
    assert caught.value.status == status
    error = json.loads(caught.value.body())["error"]
    assert error["param"] == param
    assert error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("prompt", [None, "no", [], [[]], ["a", "b"], [1, "a"], [-1], [True], 5])
def test_a_completion_needs_one_prompt(prompt: Any) -> None:
    if prompt == "no":
        assert parse({"prompt": prompt}, chat=False).prompt.text == b"no"
        return
    with pytest.raises(ApiError) as caught:
        parse({"prompt": prompt}, chat=False)
    assert (caught.value.status, caught.value.param) == (400, "prompt")


def test_a_completion_prompt_may_be_wrapped_or_tokenized() -> None:
    assert parse({"prompt": ["hello"]}, chat=False).prompt.text == b"hello"
    assert parse({"prompt": [5, 6, 7]}, chat=False).prompt.tokens == 3
    assert parse({"prompt": [[5, 6, 7]]}, chat=False).prompt.tokens == 3


@given(st.binary(max_size=60) | st.from_regex(rb'\{"messages": ?\[.{0,40}', fullmatch=True), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_call_or_an_api_error(body: bytes, chat: bool) -> None:
    try:
        read(body, chat=chat)
    except ApiError as error:
        json.loads(error.body())


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":' + b"[" * 100_000,
        b'{"messages":[' + b"9" * 10_000 + b"]}",
        b'{"messages":[{"role":' + b"9" * 10_000 + b',"content":[' + b"9" * 10_000 + b"]}]}",
        b'{"messages":[{"content":"\\ud800"}],"max_tokens":' + b"9" * 10_000 + b"}",
        b'{"prompt":[' + b"9" * 5_000 + b"]}",
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_hostile_bodies_are_answered(body: bytes, chat: bool) -> None:
    try:
        read(body, chat=chat)
    except ApiError as error:
        json.loads(error.body())


def test_the_whole_answer_carries_usage_and_ends_for_its_length() -> None:
    body = json.loads(answer_to(parse({"messages": USER, "max_tokens": 5})).body(cached_tokens=3)[0])
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["role"] == "assistant"
    usage = body["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}


@pytest.mark.parametrize("chat", [True, False])
def test_chunks_join_to_the_whole_answer(chat: bool) -> None:
    fields = {"messages": USER, "prompt": "hi", "max_tokens": 9}
    whole = json.loads(answer_to(parse(fields, chat=chat), chat=chat).body(0)[0])["choices"][0]
    answer = answer_to(parse(fields | {"stream": True}, chat=chat), chat=chat)
    got = events(answer.chunk(0, 1) + answer.chunk(1, 6) + answer.chunk(6, 9) + answer.end(0))
    choices = [event["choices"][0] for event in got]
    if chat:
        assert choices[0]["delta"]["role"] == "assistant"
        assert "".join(c["delta"].get("content", "") for c in choices) == whole["message"]["content"]
    else:
        assert "".join(c["text"] for c in choices) == whole["text"]
    assert [c["finish_reason"] for c in choices] == [None, None, None, "length"]
    assert len({event["id"] for event in got}) == 1


def test_a_stream_tells_usage_only_where_it_was_asked_for() -> None:
    fields = {"messages": USER, "stream": True}
    silent = answer_to(parse(fields)).end(0)
    asked = answer_to(parse(fields | {"stream_options": {"include_usage": True}})).end(64)
    assert "usage" not in silent.decode()
    last = events(asked)[-1]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
    assert asked.endswith(b"data: [DONE]\n\n")
