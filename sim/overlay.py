"""A mapping laid over another: it takes changes that the one below never sees.

Made at once however much lies below, which must not change for as long as the overlay is used.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

V = TypeVar("V")


class Overlay(MutableMapping[int, V]):
    """Ordered as what lies below, then what was set here; a key that was set again goes last."""

    def __init__(self, below: Mapping[int, V]) -> None:
        self._below = below
        self._gone: set[int] = set()  # keys below that do not show: removed, or set here
        self._own: dict[int, V] = {}
        self._below_in_order = iter(below)  # those it has passed are gone

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key in self._below and key not in self._gone)

    def __getitem__(self, key: int) -> V:
        if key in self._own:
            return self._own[key]
        if key in self._gone:
            raise KeyError(key)
        return self._below[key]

    def __setitem__(self, key: int, value: V) -> None:
        if key in self._below:
            self._gone.add(key)
        self._own.pop(key, None)  # so that it goes last
        self._own[key] = value

    def __delitem__(self, key: int) -> None:
        if key in self._own:
            del self._own[key]
        elif key in self:
            self._gone.add(key)
        else:
            raise KeyError(key)

    def __len__(self) -> int:
        return len(self._below) - len(self._gone) + len(self._own)

    def __iter__(self) -> Iterator[int]:
        return chain((key for key in self._below if key not in self._gone), self._own)

    def pop_first(self) -> int:
        """Remove the first key, in constant time over all calls. Raises KeyError when empty."""
        for key in self._below_in_order:
            if key not in self._gone:
                self._gone.add(key)
                return key
        for key in self._own:
            del self._own[key]
            return key
        raise KeyError("empty")
