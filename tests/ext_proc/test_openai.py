from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc import openai
from fleet.errors import UnreadableRequestError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def chat(messages: list[dict[str, Any]], **extra: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **extra}).encode()


SYSTEM = {"role": "system", "content": "You are kind."}
QUESTION = {"role": "user", "content": "What is a mesh?"}
ANSWER = {"role": "assistant", "content": "A net of proxies."}


def test_the_next_turn_begins_with_the_bytes_of_this_one() -> None:
    now = openai.parse(CHAT, chat([SYSTEM, QUESTION]))
    later = openai.parse(CHAT, chat([SYSTEM, QUESTION, ANSWER, QUESTION]))
    assert later.text.startswith(now.text)
    assert len(later.text) > len(now.text)


def test_the_same_conversation_reads_alike_whoever_wrote_the_json() -> None:
    plain = openai.parse(CHAT, chat([SYSTEM, QUESTION]))
    parts = [
        {"content": [{"type": "text", "text": m["content"]}], "role": m["role"]} for m in (SYSTEM, QUESTION)
    ]
    spaced = json.dumps({"messages": parts, "stream": False, "model": "m"}, indent=2).encode()
    assert openai.parse(CHAT, spaced).text == plain.text


def test_roles_and_boundaries_are_part_of_the_prompt() -> None:
    texts = {
        openai.parse(CHAT, chat(messages)).text
        for messages in (
            [{"role": "user", "content": "ab"}],
            [{"role": "system", "content": "ab"}],
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        )
    }
    assert len(texts) == 3


def test_tools_come_first_and_calls_are_kept() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    prompt = openai.parse(CHAT, chat([QUESTION, call], tools=tools))
    assert prompt.text.index(b'"parameters"') < prompt.text.index(b"What is a mesh?")
    assert b'"id":"1"' in prompt.text


@pytest.mark.parametrize("cut", [40, 55, 70, 5000, 20_000])
def test_a_truncated_body_still_yields_its_head(cut: int) -> None:
    body = chat([SYSTEM, {"role": "user", "content": "long " * 4000}])
    whole, head = openai.parse(CHAT, body), openai.parse(CHAT, body[: cut + 20])
    readable = head.text.rstrip(b"\x02\x04")
    assert whole.text.startswith(readable)
    assert len(readable) >= cut - 60


def test_reads_streaming_limits_session_and_salt() -> None:
    prompt = openai.parse(
        CHAT,
        chat([QUESTION], stream=True, max_tokens=7, session_id="s1", cache_salt="pepper"),
    )
    assert (prompt.streamed, prompt.output_tokens, prompt.session, prompt.cache_salt, prompt.model) == (
        True,
        7,
        "s1",
        "pepper",
        "m",
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": "once upon"}, b"once upon"),
        ({"prompt": ["once", "upon"]}, b"once\x04upon"),
        ({"prompt": [1, 2, 3]}, b"[1,2,3]"),
    ],
)
def test_reads_completions_of_every_prompt_type(body: dict[str, Any], text: bytes) -> None:
    assert openai.parse(COMPLETIONS, json.dumps(body).encode()).text == text


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (CHAT, b"", "not-json"),
        (CHAT, b"\x1f\x8b\x08\x00", "not-json"),
        (CHAT, b"[" * 5000, "not-json"),
        (CHAT, b"[1, 2]", "not-an-object"),
        (CHAT, b"{}", "no-messages"),
        (CHAT, b'{"messages": "hi"}', "no-messages"),
        (COMPLETIONS, b'{"prompt": {"a": 1}}', "no-prompt"),
        (COMPLETIONS, b'{"prompt": ""}', "no-prompt"),
    ],
)
def test_says_in_a_word_why_it_cannot_read_a_body(path: str, body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableRequestError) as caught:
        openai.parse(path, body)
    assert caught.value.reason == reason


KEYS = st.sampled_from(
    ["messages", "role", "content", "prompt", "model", "tools", "user", "metadata", "type"]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
PART = LEAF | st.dictionaries(KEYS, LEAF, max_size=3) | st.lists(LEAF, max_size=2)
MESSAGE = st.dictionaries(KEYS, PART, max_size=3)
SHAPED = st.dictionaries(KEYS, PART | st.lists(MESSAGE, max_size=2), max_size=4)


@given(body=st.binary(max_size=80) | SHAPED.map(lambda d: json.dumps(d).encode()), data=st.data())
def test_any_bytes_are_a_prompt_or_unreadable_and_nothing_else(body: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(body)))
    for path in (CHAT, COMPLETIONS):
        try:
            openai.parse(path, body[:cut])
        except UnreadableRequestError:
            continue


def test_speaks_the_two_paths_behind_any_prefix_and_no_other() -> None:
    assert openai.speaks("/v1/chat/completions?x=1")
    assert openai.speaks("/openai/v1/completions")
    assert not openai.speaks("/v1/embeddings")
    assert not openai.speaks("/v1/chat/completions/extra")
