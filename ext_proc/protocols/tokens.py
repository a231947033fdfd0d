"""Prompts of token ids: their canonical form is four little-endian bytes an id."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, cast

from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

BYTES_PER_ID = 4
"""Of the canonical form: no vocabulary has more than 2**32 tokens."""


def to_bytes(ids: Iterable[object]) -> bytes:
    """The canonical form. Raises UnreadableRequestError unless all are unsigned 32-bit integers."""
    packed: array[int]
    if isinstance(ids, array) and ids.typecode in "iI":
        packed = ids
    else:
        try:
            packed = array("I", cast("Iterable[int]", ids))
        except (TypeError, OverflowError) as error:
            raise UnreadableRequestError("bad-token-ids") from error
    if sys.byteorder == "big":
        packed = packed[:]
        packed.byteswap()
    return packed.tobytes()


def are_ids(value: object) -> bool:
    """Whether this is a list of token ids, by its first element."""
    return isinstance(value, list) and bool(value) and type(value[0]) is int
