"""Parts of clusters that gateways allow, each kept as one tuple: what is known of a part hangs on that."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

PARTS_MAX = 64
"""Parts remembered; the ones longest unused go first. Gateways name one or a few for each route."""

SMALL = 16
"""Endpoints in a part that is not worth remembering: small ones are cheap to make, and may be many."""


class Parts:
    """Of the endpoints of one fleet."""

    def __init__(self, endpoint_at: Callable[[str], str]) -> None:
        """`endpoint_at` names the endpoint that is dialled at an address."""
        self._endpoint_at = endpoint_at
        self._kept: OrderedDict[tuple[int, frozenset[str]], tuple[Sequence[str], Sequence[str]]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        """Parts remembered."""
        return len(self._kept)

    def of(self, candidates: Sequence[str], among: Collection[str]) -> Sequence[str]:
        """Those of a cluster's `candidates` that are `among` these dialled addresses, in the same order.

        The same object each time for the same list of candidates and the same addresses, unless they are few;
        the list itself where nothing is left out.
        """
        if len(among) <= SMALL:
            return self._part(candidates, among)
        key = id(candidates), frozenset(among)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is candidates:
            self._kept.move_to_end(key)
            return kept[1]
        part = self._part(candidates, among)
        self._kept[key] = candidates, part
        if len(self._kept) > PARTS_MAX:
            self._kept.popitem(last=False)
        return part

    def _part(self, candidates: Sequence[str], among: Collection[str]) -> Sequence[str]:
        allowed = {self._endpoint_at(address) for address in among}
        part = tuple(address for address in candidates if address in allowed)
        return candidates if len(part) == len(candidates) else part
