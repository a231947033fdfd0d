from __future__ import annotations

from typing import Any

import pytest

from tests.ext_proc.protocols.reading import parse, reason


@pytest.mark.parametrize(
    ("given", "length", "tokens"),
    [("abcd", 4, None), (["ab", "cd"], 5, None), ([1, 2, 3], 12, 3), ([[1, 2], [3]], 12, 3)],
)
def test_counts_what_is_embedded_and_neither_caches_nor_decodes_it(
    given: Any, length: int, tokens: int | None
) -> None:
    found = parse("embeddings", {"model": "e", "input": given, "user": "u"})
    assert (len(found.text), found.tokens, found.model, found.session) == (length, tokens, "e", "u")
    assert (found.cacheable, found.output_tokens, found.streamed) == (False, 0, False)


def test_says_that_nothing_is_to_be_embedded() -> None:
    assert reason("embeddings", {"input": ""}) == "no-input"
    assert reason("embeddings", {"messages": []}) == "no-input"
