"""OpenAI chat completions, with what trtllm-serve adds: token ids, cache salts, adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.protocols import canonical, fields, tokens
from ext_proc.protocols.body import json_object
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

_LIMITS = ("max_completion_tokens", "max_tokens")

_BEFORE_ALL = ("chat_template", "documents")
"""What changes a prompt from its first token on."""


def read(call: Call, data: bytes) -> Prompt:
    """The prompt of a chat. Raises UnreadableRequestError."""
    found = json_object(data)
    ids = found.get("prompt_token_ids")
    text = tokens.to_bytes(ids) if isinstance(ids, list) and ids else _chat(found, call.reading.media_bytes)
    return call.prompt(found, text, _LIMITS, len(ids) if isinstance(ids, list) and ids else None)


def _chat(found: dict[str, object], media_bytes: int) -> bytes:
    messages = found.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnreadableRequestError("no-messages")
    parts = [canonical.dumps(found[key]) + canonical.END for key in _BEFORE_ALL if found.get(key)]
    parts.append(canonical.tools(found.get("tools") or _functions(found)))
    for message in messages:
        if isinstance(message, dict):
            parts += _message(message, media_bytes)
    return canonical.encode("".join(parts))


def _functions(found: dict[str, object]) -> object:
    """Tools as clients named them before there were tools."""
    return found.get("functions")


def _message(message: dict[str, object], media_bytes: int) -> Iterator[str]:
    content = canonical.content(message.get("content"), media_bytes)
    calls = message.get("tool_calls")
    if not calls:
        yield canonical.message(message.get("role"), content, fields.text(message.get("tool_call_id")))
        return
    if content:
        yield canonical.message(message.get("role"), content)
    for called in calls if isinstance(calls, list) else ():
        if isinstance(called, dict):
            function = fields.mapping(called.get("function"))
            yield canonical.call(called.get("id"), function.get("name"), function.get("arguments"))
