from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.answer import TAIL_BYTES, Answer, Usage


def answered(*parts: bytes, status: str = "200") -> Answer:
    answer = Answer()
    answer.began(status)
    for now, part in enumerate(parts, start=1):
        answer.passed(part, float(now))
    return answer


def test_the_first_part_of_a_models_answer_is_its_first_token() -> None:
    answer = Answer()
    answer.began("200")
    assert not answer.passed(b"", 1.0)
    assert answer.passed(b"a", 2.0)
    assert not answer.passed(b"b", 5.0)
    assert (answer.first_body_at, answer.decode_seconds) == (2.0, 3.0)


def test_an_errors_page_has_no_first_token() -> None:
    for status, failed in (("404", False), ("503", True), ("", False), ("abc", False), ("٢٠٠", False)):
        answer = Answer()
        answer.began(status)
        assert not answer.passed(b"page", 1.0)
        assert (answer.ok, answer.failed) == (False, failed)


@pytest.mark.parametrize(
    ("status", "ok", "failed"),
    [
        ("", True, False),
        ("0", True, False),
        ("1", False, False),
        ("3", False, False),
        ("8", False, False),
        *((status, False, True) for status in ("2", "13", "14", "15")),
        ("x", False, False),
    ],
)
def test_a_grpc_answer_is_as_good_as_its_own_status(status: str, ok: bool, failed: bool) -> None:
    ended = answered(b"frame")
    ended.ended(status)
    at_once = Answer()
    at_once.began("200", status)
    assert [(answer.ok, answer.failed) for answer in (ended, at_once)] == [(ok, failed)] * 2


def test_an_answer_in_one_part_took_no_time_to_decode() -> None:
    assert answered(b"whole").decode_seconds is None
    assert answered().decode_seconds is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b'{"usage": {"prompt_tokens": 9, "completion_tokens": 3}}', Usage(3, 9, None)),
        (
            b'{"usage":{"completion_tokens":3,"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":0}}}',
            Usage(3, 9, 0),
        ),
        (
            b'{"usage": {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 4}}',
            Usage(3, 13, 4),
        ),
        (
            b'{"usage":{"input_tokens":9,"cache_creation_input_tokens":2,"cache_read_input_tokens":null}}',
            Usage(None, 11, 0),
        ),
        (
            b'{"usage":{"input_tokens":9,"output_tokens":3,"input_tokens_details":{"cached_tokens":4}}}',
            Usage(3, 9, 4),
        ),
        (b'{"usage": null} {"usage": {"completion_tokens": -1, "prompt_tokens": 1e3}}', Usage()),
        (b'{"usage": {"completion_tokens": true, "prompt_tokens": 99999999999}}', Usage()),
        (b'{"usage": {"completion_tokens": 3', Usage()),
        (b'{"usage": ', Usage()),
        (b"no usage", Usage()),
        (b'"usage": {"prompt_tokens_details": [1]}', Usage()),
        (b'"usage": {"a":' + b"[" * 4000, Usage()),
    ],
)
def test_reads_token_counts_where_the_answer_has_them(said: bytes, expected: Usage) -> None:
    assert answered(said).usage() == expected


def test_reads_token_counts_at_the_end_of_a_long_stream_and_across_its_parts() -> None:
    parts = [
        b'data: {"usage": null}\n\n' * 5000,
        b'data: {"usage": {"completion_',
        b'tokens": 7}}\n\ndata: [DONE]',
    ]
    assert answered(*parts).usage().output_tokens == 7
    early = b'{"usage": {"completion_tokens": 7}}' + b" " * TAIL_BYTES
    assert answered(early).usage() == Usage()


@given(data=st.binary(max_size=60), more=st.text(alphabet='{}[]":,usage 019', max_size=60))
def test_whatever_the_engine_sends_there_are_counts_or_none(data: bytes, more: str) -> None:
    usage = answered(data, b'"usage": {' + more.encode()).usage()
    assert all(count is None or count >= 0 for count in (usage.output_tokens, usage.prompt_tokens))
