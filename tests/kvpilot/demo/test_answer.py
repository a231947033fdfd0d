from __future__ import annotations

import json

import pytest

from kvpilot.demo.answer import AnswerReader

ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}}}


def _event(event: object) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _token(text: str) -> bytes:
    return _event({"choices": [{"delta": {"content": text}}]})


WHOLE = _event(ROLE) + _token("Hel") + _token("lo") + _event(USAGE) + b"data: [DONE]\n\n"


def test_the_role_is_not_yet_a_token() -> None:
    reader = AnswerReader()
    reader.feed(_event(ROLE), 1.0)
    assert reader.first_token_at is None
    reader.feed(_token("Hi"), 2.0)
    reader.feed(_token("!"), 3.0)
    assert reader.first_token_at == 2.0


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_bytes_may_be_cut_anywhere(size: int) -> None:
    reader = AnswerReader()
    for start in range(0, len(WHOLE), size):
        reader.feed(WHOLE[start : start + size], float(start))
    answer = reader.end()
    assert (answer.text, answer.prompt_tokens, answer.cached_tokens, answer.failure) == ("Hello", 100, 64, "")
    token_end = len(_event(ROLE) + _token("Hel"))
    assert reader.first_token_at is not None
    assert reader.first_token_at <= token_end < reader.first_token_at + size + 2


def test_carriage_returns_and_comments_are_part_of_the_format() -> None:
    reader = AnswerReader()
    reader.feed(b": ping\r\n\r\n" + WHOLE.replace(b"\n", b"\r\n"), 1.0)
    assert reader.end().text == "Hello"
    assert reader.end().failure == ""


def test_a_stream_without_its_end_mark_was_cut() -> None:
    reader = AnswerReader()
    reader.feed(WHOLE[: WHOLE.index(b"data: [DONE]")], 1.0)
    assert reader.end().failure == "stream cut short"
    assert reader.end().text == "Hello"


def test_an_error_event_is_a_failure() -> None:
    reader = AnswerReader()
    reader.feed(_token("Hel") + _event({"error": {"message": "out of memory"}}) + b"data: [DONE]\n\n", 1.0)
    assert reader.end().failure == "error in the stream"


def test_an_end_without_any_content_is_a_failure() -> None:
    reader = AnswerReader()
    reader.feed(_event(ROLE) + b"data: [DONE]\n\n", 1.0)
    assert reader.end().failure == "no content"


def test_usage_that_nobody_sent_is_unknown_and_not_zero() -> None:
    reader = AnswerReader()
    reader.feed(_token("Hi") + b"data: [DONE]\n\n", 1.0)
    answer = reader.end()
    assert (answer.prompt_tokens, answer.cached_tokens, answer.failure) == (None, None, "")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\x00",
        b"data: [[[\n",
        b"data: 5\n",
        b'data: {"choices": 1}\n',
        b'data: {"choices": [{"delta": {"content": 5}}]}\n',
        b'data: {"usage": {"prompt_tokens": "x", "prompt_tokens_details": 3}}\n',
        b"data: " + b"[" * 200_000 + b"\n",
    ],
)
def test_nothing_that_is_received_raises(garbage: bytes) -> None:
    reader = AnswerReader()
    reader.feed(garbage, 1.0)
    assert reader.end().failure == "stream cut short"
