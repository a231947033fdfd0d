"""An emulated chat template and tokenizer: from a request's messages to tokens and block names.

Four bytes of UTF-8 are a token. The template is append-only: the rendering of a conversation's next turn
begins with the rendering of this turn and its answer, so a cache that kept both matches them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_intdigest

from fleet.prefix import PrefixHasher
from sim.capacity import TOKENS_PER_BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BYTES_PER_TOKEN = 4
"""About what BPE vocabularies need for English."""

_HASHER = PrefixHasher(b"", BYTES_PER_TOKEN * TOKENS_PER_BLOCK)

MAX_ANSWER_TOKENS = 8192
"""The longest answer; a client that asks for more is cut off there, as at a real engine's limit."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt."""

    text: bytes

    @property
    def tokens(self) -> int:
        """Its length; a prompt has at least one token."""
        return max(1, len(self.text) // BYTES_PER_TOKEN)

    def blocks(self, answer: bytes = b"") -> list[int]:
        """Names of the whole blocks of prompt and answer: a hash of each, chained to the one before."""
        return _HASHER.blocks(self.text + answer, 0)


def from_messages(messages: Sequence[object], tools: object = None) -> Prompt:
    """The chat template: tools, then every message between markers, then the mark of the answer's start."""
    parts = [f"<|tools|>\n{_text(tools)}<|end|>\n"] if tools else []
    parts += [_render(message) for message in messages]
    parts.append("<|assistant|>\n")
    return _prompt("".join(parts))


def from_text(text: str) -> Prompt:
    """A plain prompt."""
    return _prompt(text)


def from_bytes(text: bytes) -> Prompt:
    """A plain prompt that came as UTF-8."""
    return Prompt(text)


def from_tokens(tokens: Sequence[int]) -> Prompt:
    """A prompt that the client tokenized. Raises ValueError unless all are unsigned 32-bit integers."""
    try:
        return Prompt(b"".join(token.to_bytes(BYTES_PER_TOKEN, "little") for token in tokens))
    except OverflowError as error:
        raise ValueError("token ids run from 0 to 4294967295") from error


def answer_text(prompt: Prompt, tokens: int) -> str:
    """Filler of exactly `tokens` tokens (at most MAX_ANSWER_TOKENS), ASCII, always the same for a prompt."""
    start = xxh3_64_intdigest(prompt.text) % MAX_ANSWER_TOKENS * BYTES_PER_TOKEN
    return _FILLER[start : start + tokens * BYTES_PER_TOKEN]


def _prompt(text: str) -> Prompt:
    return Prompt(text.encode("utf-8", "replace"))  # lone surrogates are legal in JSON and not in UTF-8


def _render(message: object) -> str:
    if not isinstance(message, dict):
        return f"<|user|>\n{_text(message)}<|end|>\n"
    calls = message.get("tool_calls")
    content = _text(message.get("content")) + (_text(calls) if calls else "")
    return f"<|{message.get('role', 'user')}|>\n{content}<|end|>\n"


def _text(content: object) -> str:
    """A message's content: a string, a list of parts, or something that nobody expected."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(_part(part) for part in content)
    return json.dumps(content, ensure_ascii=False)


def _part(part: Mapping[str, Any]) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else json.dumps(part, ensure_ascii=False)


def _filler() -> str:
    """Twice the same words, so that every start has MAX_ANSWER_TOKENS behind it; each word is one token."""
    random = Random("kvpilot")
    words = [
        random.choice("bdfgklmnprst") + random.choice("aeiou") + random.choice("lmnrst") for _ in range(500)
    ]
    return " " + " ".join(random.choices(words, k=2 * MAX_ANSWER_TOKENS))


_FILLER = _filler()
