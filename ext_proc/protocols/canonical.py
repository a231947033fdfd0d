"""The canonical prompt: what an engine's chat template will see, in one form for all protocols.

Tools first, then messages, each closed; a call of a tool and its result are messages of their own. A
message's parts follow each other as they do when a template renders them. What no template shows is left
out: names of cache breakpoints, whether a schema is strict, earlier turns' reasoning.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jiter

from ext_proc.protocols import media
from ext_proc.protocols.body import dense
from ext_proc.protocols.fields import text

if TYPE_CHECKING:
    from collections.abc import Iterator

# Separators that real text does not hold, so that no content can imitate a message boundary by accident.
ROLE, CONTENT, PART, END = "\x01", "\x02", "\x03", "\x04"

_SYNONYMS = {"developer": "system", "function": "tool"}
"""Roles that templates render alike."""

_UNSEEN = frozenset(
    {"thinking", "redacted_thinking", "reasoning", "reasoning_text", "tool_use", "tool_result"}
)
"""Kinds of parts that are no content: reasoning is dropped, calls and results are messages."""

_MEDIA_MAX = 64
"""Images in one message that count by their tokens; more are only told apart."""

_DUMP = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


def dumps(value: object) -> str:
    """JSON in one form: keys sorted, no spaces. `value` came out of a parser that bounds its depth."""
    return _DUMP.encode(value)


def encode(prompt: str) -> bytes:
    """Canonical text as bytes."""
    return prompt.encode("utf-8", "surrogatepass")


def message(role: object, content: str, about: str = "") -> str:
    """One closed message. `about` is what it answers. Who is not named is the user: a cut body's last."""
    named = role if isinstance(role, str) else "user"
    return f"{ROLE}{_SYNONYMS.get(named, named)}{about}{CONTENT}{content}{END}"


def call(id_: object, name: object, arguments: object) -> str:
    """A tool that the model called, its arguments as JSON or as the text of it."""
    return message("call", f"{text(name)}{PART}{_arguments(arguments)}", text(id_))


def result(id_: object, content: str) -> str:
    """What a called tool gave."""
    return message("tool", content, text(id_))


def tools(found: object) -> str:
    """The tools that a request offers, or ''."""
    if not isinstance(found, list) or not found:
        return ""
    return dumps([_tool(tool) if isinstance(tool, dict) else tool for tool in found]) + END


def content(found: object, media_bytes: int) -> str:
    """A message's content: a text, or parts of it. An image counts as `media_bytes`."""
    if isinstance(found, str):
        return found
    if found is None:
        return ""
    if not isinstance(found, list):
        return dumps(found)
    return "".join(_parts(found, media_bytes))


def _parts(found: list[object], media_bytes: int) -> Iterator[str]:
    strange = []
    seen = 0
    for part in found:
        if not isinstance(part, dict):
            strange.append(part)
            continue
        said = part.get("text")
        if isinstance(said, str):
            yield said
        elif text(part.get("type")) in _UNSEEN:
            continue
        elif (shown := media.digest(part, media_bytes if seen < _MEDIA_MAX else 0)) is not None:
            seen += 1
            yield PART + shown
        elif isinstance(refusal := part.get("refusal"), str):
            yield refusal
        else:
            strange.append(part)
    if strange:
        yield PART + dumps(strange)


def _tool(tool: dict[str, object]) -> object:
    """A tool in one form: OpenAI nests it in chats, and Anthropic calls its schema otherwise."""
    inner = tool.get("function")
    function = inner if isinstance(inner, dict) else tool
    schema = function.get("parameters", function.get("input_schema"))
    if schema is None and text(tool.get("type")) not in ("", "function", "custom"):
        return tool  # a server's own: web search and the like
    return [function.get("name"), function.get("description"), schema]


def _arguments(found: object) -> str:
    if not isinstance(found, str):
        return dumps(found)
    if not dense(found):
        try:
            return dumps(jiter.from_json(found.encode("utf-8", "surrogatepass"), catch_duplicate_keys=False))
        except ValueError:
            pass  # a model wrote it: not always JSON
    return found
