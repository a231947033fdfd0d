from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.early import (
    UNREAD_SHARE,
    Recall,
    announced_bytes,
    never_half_closes,
)
from ext_proc.request import RoutingRequest

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
BLOCKS = [(1 << 64) - 1 - n for n in range(10)]
READ = RoutingRequest(("10.0.0.1:80",), 10 * 64.0, BLOCKS, 64.0, output_limit=7, session="s", model="m")
BYTES = 3000


def recall(*sessions: str, blocks_max: int = 1000) -> Recall:
    made = Recall(sessions_max=3, blocks_max=blocks_max)
    for session in sessions:
        made.saw("c", "/chat", replace(READ, session=session), BYTES)
    return made


@pytest.mark.parametrize(
    ("path", "content_type", "expected"),
    [
        (STREAM, "application/grpc", True),
        (STREAM, "application/grpc+proto", True),
        (f"/prefix{STREAM}?a=b", "application/grpc", True),
        (STREAM, "application/json", False),
        ("/inference.GRPCInferenceService/ModelInfer", "application/grpc", False),
        ("/v1/chat/completions", "application/json", False),
    ],
)
def test_knows_a_stream_whose_end_may_never_come(path: str, content_type: str, expected: bool) -> None:
    assert never_half_closes({":path": path, "content-type": content_type}) is expected
    assert not never_half_closes({})


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("123", 123), ("9" * 12, 10**12 - 1)])
def test_believes_a_content_length(text: str, expected: int) -> None:
    assert announced_bytes({"content-length": text}) == expected


@pytest.mark.parametrize("text", ["", "abc", "-5", "٣٣", "9" * 13, "1.5"])
def test_does_not_believe_a_content_length_that_makes_no_sense(text: str) -> None:
    assert announced_bytes({"content-length": text}) is None
    assert announced_bytes({}) is None


def test_the_next_turn_is_as_much_longer_as_its_body_and_begins_as_the_last_one() -> None:
    asked = recall("s").next_turn("c", "/chat", "s", 4500)
    assert asked is not None
    assert asked.prompt_tokens == pytest.approx(1.5 * READ.prompt_tokens)
    assert list(asked.blocks[:10]) == BLOCKS
    assert len(asked.blocks) == 15  # what nobody read has names of its own
    assert len(set(asked.blocks)) == 15
    assert all(0 <= block < 1 << 64 for block in asked.blocks)
    assert (asked.output_limit, asked.model, asked.session) == (7, "m", "s")


def test_what_nobody_read_has_the_same_names_at_each_turn_and_others_in_another_prompt() -> None:
    known = recall("s")
    shorter, longer = known.next_turn("c", "/chat", "s", 3600), known.next_turn("c", "/chat", "s", 4500)
    assert shorter is not None
    assert longer is not None
    assert longer.blocks[: len(shorter.blocks)] == shorter.blocks
    known.saw("c", "/chat", replace(READ, session="other", blocks=[n + 1 for n in range(10)]), BYTES)
    other = known.next_turn("c", "/chat", "other", 4500)
    assert other is not None
    assert not set(other.blocks) & set(longer.blocks)


def test_a_turn_that_has_outgrown_what_was_read_must_be_read() -> None:
    known = recall("s")
    assert known.next_turn("c", "/chat", "s", int(BYTES / (1 - UNREAD_SHARE))) is not None
    assert known.next_turn("c", "/chat", "s", int(BYTES / (1 - UNREAD_SHARE)) + 1) is None


def test_a_shorter_body_is_something_new() -> None:
    assert recall("s").next_turn("c", "/chat", "s", BYTES - 1) is None
    assert recall("s").next_turn("c", "/chat", "s", BYTES) is not None


def test_a_session_is_known_in_its_own_cluster_and_by_its_own_path_only() -> None:
    assert recall("s").next_turn("c", "/embeddings", "s", BYTES) is None
    assert recall("s").next_turn("canary", "/chat", "s", BYTES) is None
    assert recall("s").next_turn("c", "/chat", "t", BYTES) is None


def test_a_prompt_too_short_for_a_block_is_always_read() -> None:
    known = Recall(sessions_max=3)
    known.saw("c", "/chat", replace(READ, blocks=(), prompt_tokens=10.0), 100)
    assert known.next_turn("c", "/chat", "s", 100) is None


def test_a_prompt_that_was_empty_is_read_again() -> None:
    for body_bytes in (100, 200):
        known = Recall(sessions_max=3)
        known.saw("c", "/chat", replace(READ, blocks=(), prompt_tokens=0.0), 100)
        assert known.next_turn("c", "/chat", "s", body_bytes) is None


def test_forgets_the_oldest_session_when_there_are_too_many() -> None:
    known = recall("a", "b", "c")
    assert known.next_turn("c", "/chat", "a", BYTES) is not None  # used: the youngest now
    known.saw("c", "/chat", replace(READ, session="d"), BYTES)
    assert len(known) == 3
    assert known.next_turn("c", "/chat", "b", BYTES) is None
    assert known.next_turn("c", "/chat", "a", BYTES) is not None


def test_keeps_no_more_blocks_than_its_budget() -> None:
    known = recall("a", "b", blocks_max=15)
    assert len(known) == 1
    assert known.next_turn("c", "/chat", "b", BYTES) is not None
    known.saw("c", "/chat", replace(READ, session="long", blocks=list(range(16))), BYTES)
    assert known.next_turn("c", "/chat", "long", BYTES) is None
    known.forget("b")
    known.saw("c", "/chat", replace(READ, session="e"), BYTES)
    assert known.next_turn("c", "/chat", "e", BYTES) is not None


def test_remembers_no_session_where_that_is_off_and_none_without_a_name() -> None:
    off = Recall(sessions_max=0)
    off.saw("c", "/chat", READ, BYTES)
    assert len(off) == 0
    nameless = recall("")
    assert len(nameless) == 0
