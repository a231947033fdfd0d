from __future__ import annotations

from array import array
from typing import Any

import pytest

from ext_proc.protocols import tokens
from fleet.errors import UnreadableRequestError


def test_an_id_is_four_little_endian_bytes_from_any_kind_of_sequence() -> None:
    for ids in ([1, 256], (1, 256), array("q", [1, 256]), array("i", [1, 256]), array("I", [1, 256])):
        assert tokens.to_bytes(ids) == b"\1\0\0\0\0\1\0\0"
    assert tokens.to_bytes([(1 << 32) - 1]) == b"\xff" * 4


@pytest.mark.parametrize("ids", [[-1], [1 << 32], [1.5], ["1"], [None], [[1]], [10**400]])
def test_refuses_what_is_no_id(ids: list[Any]) -> None:
    with pytest.raises(UnreadableRequestError):
        tokens.to_bytes(ids)


def test_knows_a_list_of_ids_by_its_first() -> None:
    assert tokens.are_ids([5])
    assert not any(tokens.are_ids(value) for value in ([], [True], ["a"], [1.0], "1", None, {1: 1}))
