from __future__ import annotations

import json

import pytest

from kvpilot.bench.prompts import Prompts


@pytest.mark.parametrize("size", [64, 4096, 225_280])
def test_makes_json_of_the_length_it_tells_with_a_prompt_of_the_length_asked_for(size: int) -> None:
    prompts = Prompts(size)
    for _ in range(3):
        _, pieces = prompts.next()
        body = b"".join(pieces)
        assert len(body) == prompts.body_bytes
        (message,) = json.loads(body)["messages"]
        assert len(message["content"]) == size


def test_goes_on_with_conversations_and_is_new_at_the_end() -> None:
    prompts = Prompts(4096)
    seen: dict[int, list[str]] = {}
    for _ in range(450):
        conversation, pieces = prompts.next()
        text = json.loads(b"".join(pieces))["messages"][0]["content"]
        seen.setdefault(conversation, []).append(text)
    assert len(seen) == 200
    first, second, *_ = seen[1]
    assert first[: 3 * 1024] == second[: 3 * 1024]
    assert first != second
    assert seen[2][0][:1024] == first[:1024]
    assert seen[2][0][: 3 * 1024] != first[: 3 * 1024]
