from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from ext_proc.protocols import REASONS, Call, Protocol
from fleet.errors import UnreadableRequestError
from tests.ext_proc.protocols.reading import READING, parse

if TYPE_CHECKING:
    from ext_proc.request import Prompt


def test_whatever_a_parser_did_not_foresee_is_a_reason_and_no_exception() -> None:
    for error in (KeyError("x"), TypeError("x"), RecursionError(), ZeroDivisionError(), UnicodeError("x")):

        def read(_: Call, __: bytes, error: Exception = error) -> Prompt:
            raise error

        with pytest.raises(UnreadableRequestError) as caught:
            Protocol("odd", read).parse(Call("/", {}, b"{}", READING))
        assert caught.value.reason == "unforeseen"
        assert caught.value.reason in REASONS


def test_says_how_much_of_a_body_it_read_where_that_is_not_all() -> None:
    text = json.dumps({"prompt": "word " * 2_000_000}).encode()
    assert parse("completions", text).read_bytes == READING.bytes_max
    assert parse("completions", text[:1000]).read_bytes is None
    packed = gzip.compress(text)
    found = parse("completions", packed, {"content-encoding": "gzip"})
    assert found.read_bytes is not None
    assert found.read_bytes / len(packed) == pytest.approx(READING.bytes_max / len(text), rel=0.2)
    assert parse("completions", gzip.compress(text[:1000]), {"content-encoding": "gzip"}).read_bytes is None
