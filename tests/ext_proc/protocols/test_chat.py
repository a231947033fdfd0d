from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ext_proc.protocols.reading import parse, reason


def chat(messages: list[dict[str, Any]], **extra: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **extra}).encode()


SYSTEM = {"role": "system", "content": "You are kind."}
QUESTION = {"role": "user", "content": "What is a mesh?"}
ANSWER = {"role": "assistant", "content": "A net of proxies."}


def test_the_next_turn_begins_with_the_bytes_of_this_one() -> None:
    now = parse("chat", chat([SYSTEM, QUESTION]))
    later = parse("chat", chat([SYSTEM, QUESTION, ANSWER, QUESTION]))
    assert later.text.startswith(now.text)
    assert len(later.text) > len(now.text)


def test_the_same_conversation_reads_alike_whoever_wrote_the_json() -> None:
    plain = parse("chat", chat([SYSTEM, QUESTION]))
    parts = [
        {"content": [{"type": "text", "text": m["content"]}], "role": m["role"]} for m in (SYSTEM, QUESTION)
    ]
    spaced = json.dumps({"messages": parts, "stream": False, "model": "m"}, indent=2).encode()
    assert parse("chat", spaced).text == plain.text


def test_roles_and_boundaries_are_part_of_the_prompt() -> None:
    texts = {
        parse("chat", chat(messages)).text
        for messages in (
            [{"role": "user", "content": "ab"}],
            [{"role": "system", "content": "ab"}],
            [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        )
    }
    assert len(texts) == 3


def test_tools_come_first_and_calls_are_kept() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    prompt = parse("chat", chat([QUESTION, call], tools=tools))
    assert prompt.text.index(b'{"type":"object"}') < prompt.text.index(b"What is a mesh?")
    assert prompt.text.endswith(b"\x01call1\x02f\x03null\x04")


@pytest.mark.parametrize("cut", [40, 55, 70, 5000, 20_000])
def test_a_truncated_body_still_yields_its_head(cut: int) -> None:
    body = chat([SYSTEM, {"role": "user", "content": "long " * 4000}])
    whole, head = parse("chat", body), parse("chat", body[: cut + 20])
    readable = head.text.rstrip(b"\x02\x04")
    assert whole.text.startswith(readable)
    assert len(readable) >= cut - 60


def test_reads_streaming_limits_session_and_salt() -> None:
    prompt = parse(
        "chat",
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
    ("body", "why"),
    [
        (b"", "not-json"),
        (b"\x1f\x8b\x08\x00", "not-json"),
        (b"[" * 5000, "not-json"),
        (b"[1, 2]", "not-an-object"),
        (b"{}", "no-messages"),
        (b'{"messages": "hi"}', "no-messages"),
        (b'{"prompt_token_ids": [-1]}', "bad-token-ids"),
        (b'{"prompt_token_ids": [1, "a"]}', "bad-token-ids"),
    ],
)
def test_says_in_a_word_why_it_cannot_read_a_body(body: bytes, why: str) -> None:
    assert reason("chat", body) == why


def test_a_prompt_of_token_ids_is_those_ids_and_goes_before_messages() -> None:
    prompt = parse("chat", chat([QUESTION], prompt_token_ids=[1, 2, 70_000]))
    assert prompt.text == b"\1\0\0\0\2\0\0\0\x70\x11\1\0"
    assert prompt.tokens == 3


def test_reads_the_adapter_that_trtllm_serve_takes() -> None:
    named = {"lora_name": "sql", "lora_int_id": 3, "lora_path": "/x"}
    assert parse("chat", chat([QUESTION], lora_request=named)).lora == "sql"
    assert parse("chat", chat([QUESTION], lora_request={"lora_int_id": 3})).lora == "3"
    assert parse("chat", chat([QUESTION], lora_request=[])).lora == ""


def test_a_message_whose_role_was_cut_off_reads_as_the_users() -> None:
    body = b'{"messages":[{"content":"What is a mesh?","role":"user"}]}'
    assert parse("chat", body[: body.index(b',"role"')]).text == parse("chat", body).text


def test_what_changes_the_template_comes_before_all_else() -> None:
    plain = parse("chat", chat([QUESTION]))
    documents = parse("chat", chat([QUESTION], documents=[{"text": "a"}]))
    assert documents.text.endswith(plain.text)
    assert len(documents.text) > len(plain.text)
