"""OpenAI chat completions and completions: from bytes to a `Prompt`.

A body cut short still yields its head: prefix affinity needs only the beginning. The canonical prompt
puts tools first, then messages in order, each closed, so that the next turn of a conversation begins with
the bytes of this one, whoever wrote the JSON and in whichever order of keys.
"""

from __future__ import annotations

import json
from typing import Any

import jiter

from ext_proc import session
from ext_proc.request import Prompt
from fleet.errors import UnreadableRequestError

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

# Separators that real text does not hold, so that no content can imitate a message boundary by accident.
_ROLE, _CONTENT, _PART, _END = "\x01", "\x02", "\x03", "\x04"


def speaks(path: str) -> bool:
    """Whether requests to `path` (query allowed, any prefix before /v1) are read here."""
    return path.partition("?")[0].endswith((CHAT, COMPLETIONS))


def parse(path: str, body: bytes) -> Prompt:
    """The prompt in `body`, whole or cut. Raises UnreadableRequestError and nothing else."""
    try:
        data = jiter.from_json(body, partial_mode="trailing-strings", catch_duplicate_keys=False)
    except ValueError as error:
        raise UnreadableRequestError("not-json") from error
    if not isinstance(data, dict):
        raise UnreadableRequestError("not-an-object")
    chat = path.partition("?")[0].endswith(CHAT)
    text = _chat_text(data) if chat else _completion_text(data.get("prompt"))
    return Prompt(
        model=_text(data.get("model")),
        text=text.encode("utf-8", "surrogatepass"),
        streamed=data.get("stream") is True,
        output_tokens=_output_tokens(data),
        session=session.from_body(data),
        cache_salt=_text(data.get("cache_salt")),
    )


def _chat_text(data: dict[str, Any]) -> str:
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnreadableRequestError("no-messages")
    parts = []
    if tools := data.get("tools"):
        parts.append(_dumps(tools) + _END)
    parts += [_message_text(message) for message in messages if isinstance(message, dict)]
    return "".join(parts)


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else _content_text(content)
    calls = message.get("tool_calls")
    called = _PART + _dumps(calls) if calls else ""
    answers = _text(message.get("tool_call_id"))
    return f"{_ROLE}{_text(message.get('role'))}{answers}{_CONTENT}{text}{called}{_END}"


def _content_text(content: object) -> str:
    """Content given in parts: texts as they are, anything else (images, audio) as its JSON."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return _dumps(content)
    return "".join(
        part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else _PART + _dumps(part)
        for part in content
    )


def _completion_text(prompt: object) -> str:
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            return _END.join(prompt)
        return _dumps(prompt)
    raise UnreadableRequestError("no-prompt")


def _output_tokens(data: dict[str, Any]) -> int | None:
    for key in ("max_completion_tokens", "max_tokens"):
        value = data.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, 1 << 20)
    return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
