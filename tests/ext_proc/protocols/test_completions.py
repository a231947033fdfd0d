from __future__ import annotations

from typing import Any

import pytest

from tests.ext_proc.protocols.reading import parse, reason


@pytest.mark.parametrize(
    ("prompt", "text", "tokens"),
    [
        ("once upon", b"once upon", None),
        (["once", "upon"], b"once\x04upon", None),
        ([1, 256], b"\1\0\0\0\0\1\0\0", 2),
        ([[1], [2, 3]], b"\1\0\0\0\2\0\0\0\3\0\0\0", 3),
    ],
)
def test_reads_every_kind_of_prompt(prompt: Any, text: bytes, tokens: int | None) -> None:
    found = parse("completions", {"prompt": prompt})
    assert (found.text, found.tokens) == (text, tokens)


def test_token_ids_may_have_a_field_of_their_own() -> None:
    found = parse("completions", {"prompt": "x", "prompt_token_ids": [7, 8]})
    assert (found.text, found.tokens) == (b"\7\0\0\0\10\0\0\0", 2)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ({"a": 1}, "no-prompt"),
        ("", "no-prompt"),
        (None, "no-prompt"),
        ([[]], "no-prompt"),
        (["a", 1], "no-prompt"),
        ([1, "a"], "bad-token-ids"),
        ([1, -1], "bad-token-ids"),
        ([1 << 32], "bad-token-ids"),
    ],
)
def test_says_why_a_prompt_is_none(prompt: Any, why: str) -> None:
    assert reason("completions", {"prompt": prompt}) == why


def test_reads_limits_and_streaming() -> None:
    found = parse("completions", {"prompt": "a", "max_tokens": 5, "stream": True, "model": "m"})
    assert (found.output_tokens, found.streamed, found.model) == (5, True, "m")
