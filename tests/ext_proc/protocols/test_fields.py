from __future__ import annotations

from typing import Any

import pytest

from ext_proc.protocols import fields


@pytest.mark.parametrize("value", [0, -1, True, "5", 5.0, None, [5]])
def test_what_limits_nothing_is_no_limit(value: Any) -> None:
    assert fields.output_limit({"max_tokens": value}, ["max_tokens"]) is None


def test_the_first_key_that_says_something_sets_the_limit_up_to_a_bound() -> None:
    assert fields.output_limit({"a": None, "b": 7, "c": 8}, ["a", "b", "c"]) == 7
    assert fields.output_limit({"a": 10**30}, ["a"]) == fields.OUTPUT_TOKENS_MAX


def test_names_are_bounded_and_nothing_else_is_one() -> None:
    assert len(fields.name("n" * 10_000)) == fields.NAME_MAX
    assert [fields.name(value) for value in (5, None, ["a"])] == ["", "", ""]
    assert fields.text("t" * 10_000) == "t" * 10_000
    assert fields.mapping([1]) == {}


@pytest.mark.parametrize(
    ("request_", "lora"),
    [
        ({"lora_name": "sql"}, "sql"),
        ({"lora_int_id": 4}, "4"),
        ({"lora_name": 5, "lora_int_id": -1}, ""),
        ({"lora_int_id": True}, ""),
        ("sql", ""),
    ],
)
def test_reads_an_adapters_name_or_number(request_: Any, lora: str) -> None:
    assert fields.lora({"lora_request": request_}) == lora
