"""Finding which conversation a request belongs to: headers first, then a cookie, then the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LENGTH_MAX = 256
"""Longer ids are cut: they come from clients, and every one is remembered."""

_BODY_KEYS = ("session_id", "conversation_id", "conversation", "previous_response_id", "prompt_cache_key")


def from_headers(headers: Mapping[str, str], names: Sequence[str], cookie: str) -> str:
    """The session that the request's headers name, or ''. Header names are lower case."""
    for name in names:
        if value := headers.get(name):
            return value[:LENGTH_MAX]
    return _from_cookies(headers.get("cookie", ""), cookie)


def from_body(data: Mapping[str, Any]) -> str:
    """The session that an OpenAI body names, or ''."""
    for key in _BODY_KEYS:
        if found := _identifier(data.get(key)):
            return found
    for outer, key in (("conversation_params", "conversation_id"), ("metadata", "session_id")):
        inner = data.get(outer)
        if isinstance(inner, dict) and (found := _identifier(inner.get(key))):
            return found
    return _identifier(data.get("user"))


def _identifier(value: object) -> str:
    if isinstance(value, dict):  # the Responses API also takes `conversation: {id: ...}`
        value = value.get("id")
    return value[:LENGTH_MAX] if isinstance(value, str) else ""


def _from_cookies(cookies: str, wanted: str) -> str:
    for pair in cookies.split(";") if wanted else ():
        name, _, value = pair.strip().partition("=")
        if name == wanted:
            return value[:LENGTH_MAX]
    return ""
