"""Canonical prompts and their hashes are what they were when `golden.json` was written."""

from __future__ import annotations

import json

import pytest

from tests.ext_proc.protocols.golden import FILE, REQUESTS, vector

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", REQUESTS)
def test_the_canonical_prompt_and_its_hashes_have_not_changed(name: str) -> None:
    assert vector(name) == GOLDEN[name]


def test_every_vector_is_of_a_request_and_has_blocks_to_tell_it_by() -> None:
    assert GOLDEN.keys() == REQUESTS.keys()
    assert all(len(set(golden["blocks"])) == golden["bytes"] // 256 > 0 for golden in GOLDEN.values())
