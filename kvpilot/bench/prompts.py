"""The requests of the load: conversations that share a system prompt, each turn new at its end.

A quarter of every prompt is the same for all, half is the conversation's own, and the last quarter is new
each time: so a pick has a match to find and new blocks to learn.
"""

from __future__ import annotations

import json

CONVERSATIONS = 200
_POOL_BYTES = 64 << 20
"""Most that the conversations of one size take: with large prompts there are fewer of them."""

_WORDS = "every word of this prompt is counted and none of it is meant "


class Prompts:
    """Request bodies of one size, for ever."""

    def __init__(self, prompt_bytes: int) -> None:
        """`prompt_bytes`: length of the text of the one message."""
        count = max(4, min(CONVERSATIONS, _POOL_BYTES // prompt_bytes))
        shared, own = prompt_bytes // 4, prompt_bytes // 2
        self._heads = [
            _opening(_text("system", shared) + _text(f"{n:06d}", own)).encode() for n in range(count)
        ]
        self._rest = _text("", prompt_bytes - shared - own - 10)
        self._tail = f'{self._rest}"}}],"max_tokens":16}}'.encode()
        self._sent = 0
        self.body_bytes = len(self._heads[0]) + 10 + len(self._tail)

    def next(self) -> tuple[int, tuple[bytes, bytes, bytes]]:
        """The number of a conversation, and its next request body in pieces."""
        self._sent += 1
        conversation = self._sent % len(self._heads)
        return conversation, (self._heads[conversation], b"%010d" % self._sent, self._tail)


def _opening(text: str) -> str:
    return json.dumps({"model": "bench", "messages": [{"role": "user", "content": text}]})[: -len('"}]}')]


def _text(start: str, length: int) -> str:
    return (start + _WORDS * (length // len(_WORDS) + 1))[:length]
