"""A streamed chat answer as its bytes arrive: when the first token came, what it says, whether it is whole.

Sans I/O: bytes and the time go in. Only the events up to the first token are decoded while the stream runs,
so that timing one answer does not delay the timing of others; the rest waits until it has ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished stream. `failure` says in a few words why it is no whole answer; empty if it is one.

    Token counts are the engine's `usage`; None where it sent none.
    """

    text: str
    prompt_tokens: int | None
    cached_tokens: int | None
    failure: str


class AnswerReader:
    """Server-sent events of one streamed chat completion."""

    def __init__(self) -> None:
        self.first_token_at: float | None = None
        """When the first chunk with content was fed; in the caller's clock."""
        self._received = bytearray()
        self._searched = 0  # bytes known to hold no content yet; ends behind a whole line

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes as they came off the connection, cut anywhere."""
        self._received += data
        if self.first_token_at is not None:
            return
        end = self._received.rfind(b"\n") + 1
        if any(_content(event) for event in _events(bytes(self._received[self._searched : end]))):
            self.first_token_at = now
        self._searched = max(end, self._searched)

    def end(self) -> Answer:
        """The connection's stream is over: what it amounted to. Never raises, whatever was received."""
        received = bytes(self._received)
        events = _events(received)
        usage: dict[str, Any] = {}
        for event in events:
            if isinstance(told := event.get("usage"), dict):
                usage = told
        details = usage.get("prompt_tokens_details")
        return Answer(
            text="".join(_content(event) for event in events),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
            failure=self._failure(events, received),
        )

    def _failure(self, events: list[dict[str, Any]], received: bytes) -> str:
        if any(event.get("error") for event in events):
            return "error in the stream"
        if received.rstrip().rsplit(b"\n", 1)[-1].replace(b" ", b"") != b"data:[DONE]":
            return "stream cut short"
        return "" if self.first_token_at is not None else "no content"


def _events(lines: bytes) -> list[dict[str, Any]]:
    found = []
    for line in lines.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError):
            continue  # [DONE], a line that the end of a broken stream cut, or nothing an engine sends
        if isinstance(event, dict):
            found.append(event)
    return found


def _content(event: dict[str, Any]) -> str:
    try:
        content = event["choices"][0]["delta"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
