"""Anthropic messages, whole and as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.apis.api import (
    JSON_TYPE,
    Api,
    ApiError,
    Call,
    Text,
    check_model,
    dumps,
    event,
    json_object,
    length,
    limit,
)
from sim.prompt import from_messages

if TYPE_CHECKING:
    from sim.apis.api import Incoming


def read(incoming: Incoming) -> Call:
    """A system prompt and messages. Raises ApiError with what Anthropic would answer."""
    fields = json_object(incoming.body)
    check_model(fields, incoming.model)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages: at least one message is required", "messages")
    allowed = limit(fields, ("max_tokens",))
    if allowed is None:
        raise ApiError(400, "max_tokens: field required", "max_tokens")
    if system := fields.get("system"):
        messages = [{"role": "system", "content": system}, *messages]
    return Call(
        model=incoming.model,
        prompt=from_messages(messages, fields.get("tools")),
        output_tokens=length(allowed),
        limited=True,
        stream=fields.get("stream") is True,
    )


def error(found: ApiError) -> bytes:
    """A refusal as Anthropic words it."""
    kind = "not_found_error" if found.status == 404 else found.kind
    return dumps({"type": "error", "error": {"type": kind, "message": str(found)}})


class Message:
    """The answer: one block of text."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:  # noqa: ARG002
        self._call = call
        self._text = Text(call)
        self._head = {"id": f"msg_{answer_id}", "type": "message", "role": "assistant", "model": call.model}

    def chunk(self, start: int, end: int) -> bytes:
        """A delta; before the first, that the message has begun."""
        begun = b"" if start else self._begin()
        delta = {"type": "text_delta", "text": self._text.part(start, end)}
        return begun + _event("content_block_delta", index=0, delta=delta)

    def end(self, cached_tokens: int) -> bytes:
        """The end of the block and of the message, and usage."""
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        return (
            _event("content_block_stop", index=0)
            + _event("message_delta", delta=delta, usage=self._usage(cached_tokens))
            + _event("message_stop")
        )

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The whole message."""
        found = self._head | {
            "content": [{"type": "text", "text": self._text.whole}],
            "stop_reason": "max_tokens",
            "stop_sequence": None,
            "usage": self._usage(cached_tokens),
        }
        return dumps(found), {"Content-Type": JSON_TYPE}

    def _begin(self) -> bytes:
        usage = {"input_tokens": self._call.prompt.tokens, "output_tokens": 1}
        message: dict[str, Any] = self._head | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        block = {"type": "text", "text": ""}
        return _event("message_start", message=message) + _event(
            "content_block_start", index=0, content_block=block
        )

    def _usage(self, cached_tokens: int) -> dict[str, int]:
        """Anthropic counts what was cached apart from the other input."""
        return {
            "input_tokens": self._call.prompt.tokens - cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached_tokens,
            "output_tokens": self._call.output_tokens,
        }


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


MESSAGES = Api(read, Message, error)
