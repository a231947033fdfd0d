from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.prompt import (
    BYTES_PER_TOKEN,
    MAX_ANSWER_TOKENS,
    Prompt,
    answer_text,
    from_messages,
    from_text,
    from_tokens,
)

messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()}),
    min_size=1,
    max_size=4,
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(messages, st.integers(1, 300), st.text())
@settings(max_examples=60, deadline=None)
def test_the_next_turn_begins_with_this_turn_and_its_answer(
    history: list[dict[str, str]], tokens: int, follow_up: str
) -> None:
    prompt = from_messages(history)
    answer = answer_text(prompt, tokens)
    turn = [{"role": "assistant", "content": answer}, {"role": "user", "content": follow_up}]
    following = from_messages([*history, *turn])
    assert following.text.startswith(prompt.text + answer.encode())
    held = prompt.blocks(answer.encode())
    assert following.blocks()[: len(held)] == held
    assert held[: prompt.tokens // 32] == prompt.blocks()


def test_a_difference_changes_every_block_after_it_and_none_before() -> None:
    one, other = from_text("a" * 1024), from_text("a" * 500 + "b" + "a" * 523)
    assert len(one.blocks()) == 8
    assert one.blocks()[:3] == other.blocks()[:3]
    assert not set(one.blocks()[3:]) & set(other.blocks()[3:])


def test_roles_and_tools_are_part_of_the_prompt() -> None:
    texts = {
        from_messages([{"role": "user", "content": "hi"}]).text,
        from_messages([{"role": "system", "content": "hi"}]).text,
        from_messages([{"role": "user", "content": "hi"}], [{"type": "function"}]).text,
        from_messages([{"role": "user", "content": "hi", "tool_calls": [{"id": "1"}]}]).text,
    }
    assert len(texts) == 4


def test_a_list_of_text_parts_reads_like_the_text() -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    plain = from_messages([{"role": "user", "content": "hello there"}])
    assert from_messages([{"role": "user", "content": parts}]) == plain


@given(st.lists(json_values, min_size=1, max_size=4), json_values)
@settings(max_examples=100, deadline=None)
def test_any_json_renders(odd: list[Any], tools: Any) -> None:
    assert from_messages(odd, tools).tokens >= 1


def test_lone_surrogates_are_text_too() -> None:
    assert from_messages(json.loads('[{"role": "user", "content": "\\ud800 hi"}]')).tokens > 1


def test_a_token_id_is_one_token() -> None:
    assert from_tokens([1, 2, 3, 151_643]).tokens == 4
    assert len(from_tokens(list(range(64))).blocks()) == 2
    for bad in (-1, 1 << 32):
        with pytest.raises(ValueError, match="token ids"):
            from_tokens([bad])


@pytest.mark.parametrize("tokens", [1, 2, 63, MAX_ANSWER_TOKENS])
def test_an_answer_has_exactly_the_tokens_asked_for_and_repeats_itself(tokens: int) -> None:
    for content in ("", "a", "b" * 1000):
        answer = answer_text(from_text(content), tokens)
        assert len(answer) == tokens * BYTES_PER_TOKEN
        assert answer.isascii()
        assert answer == answer_text(Prompt(content.encode()), tokens)
    assert answer_text(from_text("a"), 8) != answer_text(from_text("b"), 8)
