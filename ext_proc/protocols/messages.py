"""Anthropic messages: the system prompt apart, contents in blocks, tools called and answered inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.protocols import canonical
from ext_proc.protocols.body import json_object
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

_LIMITS = ("max_tokens",)


def read(call: Call, data: bytes) -> Prompt:
    """The prompt of a message. Raises UnreadableRequestError."""
    found = json_object(data)
    messages = found.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnreadableRequestError("no-messages")
    media_bytes = call.reading.media_bytes
    parts = [canonical.tools(found.get("tools"))]
    if system := canonical.content(found.get("system"), media_bytes):
        parts.append(canonical.message("system", system))
    for message in messages:
        if isinstance(message, dict):
            parts += _message(message, media_bytes)
    return call.prompt(found, canonical.encode("".join(parts)), _LIMITS)


def _message(message: dict[str, object], media_bytes: int) -> Iterator[str]:
    """Results of tools, then what was said, then the calls, as OpenAI's clients would put them."""
    content = message.get("content")
    if isinstance(content, str):
        yield canonical.message(message.get("role"), content)
        return
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    for block in results:
        yield canonical.result(block.get("tool_use_id"), canonical.content(block.get("content"), media_bytes))
    said = canonical.content(content, media_bytes)
    if said or not (calls or results):
        yield canonical.message(message.get("role"), said)
    for block in calls:
        yield canonical.call(block.get("id"), block.get("name"), block.get("input"))
