"""What a request's headers alone say of it, for decisions without its body.

Two kinds of request are decided so: a session's next turn, priced by what was read of the last one, which
saves Envoy the buffering and the picker the body; and gRPC streams that clients never half-close, which
Envoy would hold for ever where it waits for their end.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fleet.names import KSERVE_STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.request import RoutingRequest

LENGTH_DIGITS_MAX = 12
"""Of a content-length that can be true: a terabyte."""

UNREAD_SHARE = 0.5
"""Of a prompt that may be guesswork: a turn that has grown beyond it is read again, at 1, 2, 4, 8 times the
length, so that blocks stay those of the text and reading costs a constant share."""

BLOCKS_MAX = 1_000_000
"""Blocks remembered over all sessions, 8 bytes each: the budget that the prefix index has, too."""

_MIX, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1  # the golden ratio in 64 bits: it visits every number once


def never_half_closes(headers: Mapping[str, str]) -> bool:
    """Whether the request is a gRPC stream whose end may never come."""
    path = headers.get(":path", "").partition("?")[0]
    return path.endswith(KSERVE_STREAM) and headers.get("content-type", "").startswith("application/grpc")


def announced_bytes(headers: Mapping[str, str]) -> int | None:
    """The body's length as its headers tell; None where they do not, or make no sense."""
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()) or len(text) > LENGTH_DIGITS_MAX:
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class _Turn:
    """The last turn of a session that was read."""

    cluster: str
    path: str
    request: RoutingRequest
    body_bytes: float


class Recall:
    """What was read of sessions' last turns. Bounded; the oldest go first."""

    def __init__(self, sessions_max: int, blocks_max: int = BLOCKS_MAX) -> None:
        """`sessions_max` 0: sessions are not remembered at all."""
        self._sessions_max = sessions_max
        self._blocks_max = blocks_max
        self._blocks = 0
        self._turns: OrderedDict[str, _Turn] = OrderedDict()

    def __len__(self) -> int:
        """Sessions remembered."""
        return len(self._turns)

    def saw(self, cluster: str, path: str, request: RoutingRequest, body_bytes: float) -> None:
        """A request for `path` in `cluster` was read; its whole body has so many bytes."""
        if not (self._sessions_max and request.session and body_bytes > 0):
            return
        self.forget(request.session)
        if len(request.blocks) > self._blocks_max:
            return
        kept = replace(request, blocks=array("Q", request.blocks))
        self._turns[request.session] = _Turn(cluster, path, kept, body_bytes)
        self._blocks += len(request.blocks)
        while len(self._turns) > self._sessions_max or self._blocks > self._blocks_max:
            self.forget(next(iter(self._turns)))

    def forget(self, session: str) -> None:
        """The session's next turn must be read."""
        turn = self._turns.pop(session, None)
        if turn is not None:
            self._blocks -= len(turn.request.blocks)

    def next_turn(self, cluster: str, path: str, session: str, body_bytes: int) -> RoutingRequest | None:
        """What a further turn with a body of that length asks for; None where it must be read.

        It begins as the last one that was read, and is longer in proportion. Who sends a shorter body has
        begun something new.
        """
        turn = self._turns.get(session)
        if turn is None or (turn.cluster, turn.path) != (cluster, path) or body_bytes < turn.body_bytes:
            return None
        last = turn.request
        tokens = last.prompt_tokens * body_bytes / turn.body_bytes
        unread = tokens - len(last.blocks) * last.tokens_per_block
        if not last.blocks or unread > UNREAD_SHARE * tokens:
            return None
        self._turns.move_to_end(session)
        blocks = [*last.blocks, *_stand_ins(last.blocks, int(unread / last.tokens_per_block))]
        return replace(last, prompt_tokens=tokens, blocks=blocks)


def _stand_ins(blocks: Sequence[int], count: int) -> list[int]:
    """Names for the blocks that follow: the same at each turn, and nobody else's.

    So the next turn finds at its endpoint what this one added there, although nobody has read it.
    """
    last = blocks[-1]
    return [(last + _MIX * n) & _MASK for n in range(1, count + 1)]
