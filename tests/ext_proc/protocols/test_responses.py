from __future__ import annotations

from typing import Any

import pytest

from tests.ext_proc.protocols.reading import parse, reason

QUESTION = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is a mesh?"}]}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
ANSWER = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A net."}]}


def test_a_text_and_an_item_that_says_it_are_the_same_prompt() -> None:
    assert (
        parse("responses", {"input": "What is a mesh?"}).text
        == parse("responses", {"input": [QUESTION]}).text
    )


def test_instructions_come_before_the_input_and_tools_before_both() -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}]
    text = parse("responses", {"instructions": "Be kind.", "input": "Hi", "tools": tools}).text
    assert text.index(b'"f"') < text.index(b"Be kind.") < text.index(b"Hi")


def test_the_next_turn_begins_with_the_bytes_of_this_one_whatever_was_thought_between() -> None:
    now = parse("responses", {"input": [QUESTION]})
    later = parse("responses", {"input": [QUESTION, THOUGHT, ANSWER, QUESTION]})
    assert later.text.startswith(now.text)


def test_reads_limit_streaming_and_session() -> None:
    body = {"input": "a", "max_output_tokens": 9, "stream": True, "conversation": {"id": "c"}, "model": "m"}
    found = parse("responses", body)
    assert (found.output_tokens, found.streamed, found.session, found.model) == (9, True, "c", "m")


def test_items_nobody_knows_are_part_of_the_prompt() -> None:
    one, other = (parse("responses", {"input": [{"type": "shell_call", "n": n}]}).text for n in (1, 2))
    assert one != other


@pytest.mark.parametrize("given", [None, "", [], 5, {"a": 1}])
def test_says_that_there_is_no_input(given: Any) -> None:
    assert reason("responses", {"input": given}) == "no-input"
