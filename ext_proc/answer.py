"""What the parts of an answer that pass by say of it: its status, its first token, who serves, its usage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TAIL_BYTES = 4096
"""Of the answer's end that are kept to look for token counts in: they are in the last event or field."""

SERVER_ERROR = 500
"""From here on a status code speaks of the endpoint; the picker leaves out one that keeps saying so."""

GRPC_OK = "0"
GRPC_SERVER_ERRORS = frozenset({"2", "13", "14", "15"})
"""UNKNOWN, INTERNAL, UNAVAILABLE and DATA_LOSS: the gRPC statuses that speak of the endpoint."""

TOKENS_MAX = 1e9
"""No true count of tokens is larger."""

_READ, _CREATED = "cache_read_input_tokens", "cache_creation_input_tokens"

_DECODER = json.JSONDecoder()


@dataclass(slots=True)
class Usage:
    """Token counts that the engine told; None where it did not."""

    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


class Answer:
    """One answer as it passes by. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self.status = 0  # 0: no headers yet
        self.grpc_status = ""  # by number; '' for none, or none yet
        self.first_body_at: float | None = None
        self._last_body_at = 0.0
        self._tail = b""

    @property
    def ok(self) -> bool:
        """Whether this is a model's answer, and no error's page."""
        return 200 <= self.status < 300 and self.grpc_status in ("", GRPC_OK)

    @property
    def failed(self) -> bool:
        """Whether one of its statuses speaks against the endpoint."""
        return self.status >= SERVER_ERROR or self.grpc_status in GRPC_SERVER_ERRORS

    @property
    def decode_seconds(self) -> float | None:
        """From the first part of the body to the last; None for one that came at once."""
        if self.first_body_at is None or self._last_body_at <= self.first_body_at:
            return None
        return self._last_body_at - self.first_body_at

    def began(self, status: str, grpc_status: str = "") -> None:
        """The headers came, with `:status`, and with `grpc-status` where nothing comes after them."""
        self.grpc_status = grpc_status
        self.status = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 0

    def ended(self, grpc_status: str) -> None:
        """The trailers came, with `grpc-status`; '' where they have none."""
        self.grpc_status = grpc_status

    def passed(self, body: bytes, now: float) -> bool:
        """A part of the body came. Whether it is the first of an answer of a model."""
        if not body:
            return False
        self._tail = (self._tail + body)[-TAIL_BYTES:]
        self._last_body_at = now
        if self.first_body_at is not None:
            return False
        self.first_body_at = now
        return self.ok

    def usage(self) -> Usage:
        """The token counts near its end, in the words of OpenAI or Anthropic. Never raises."""
        start = self._tail.rfind(b'"usage"')
        start = self._tail.find(b"{", start) if start >= 0 else -1
        if start < 0:
            return Usage()
        try:
            said, _ = _DECODER.raw_decode(self._tail[start:].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return Usage()
        output = _count(said.get("completion_tokens", said.get("output_tokens")))
        prompt = _count(said.get("prompt_tokens", said.get("input_tokens")))
        details = said.get("prompt_tokens_details") or said.get("input_tokens_details")
        if isinstance(details, dict):
            return Usage(output, prompt, _count(details.get("cached_tokens")))
        if _READ not in said and _CREATED not in said:
            return Usage(output, prompt)
        read, written = (_count(said.get(key)) for key in (_READ, _CREATED))
        if prompt is None:
            return Usage(output, None, read or 0)
        return Usage(output, *counted_apart(prompt, read, written))


def counted_apart(prompt: int, read: int | None, written: int | None) -> tuple[int, int]:
    """Prompt and cached tokens in OpenAI's way of counting, of an answer in Anthropic's.

    Anthropic counts as the prompt only what was neither read from the cache nor written to it.
    """
    cached = read or 0
    return prompt + cached + (written or 0), cached


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < TOKENS_MAX
    return value if whole else None
