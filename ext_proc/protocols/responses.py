"""OpenAI responses: instructions, and a text or items.

A request with `previous_response_id` brings its new input only: what was said before lies with the engine
that answered, and is not in the prompt hashed here. The next turn names the id of the answer, which nobody
here sees, so such a chain has no lasting session unless the client also names one (`conversation`, a header).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.protocols import canonical, fields
from ext_proc.protocols.body import json_object
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

_LIMITS = ("max_output_tokens",)


def read(call: Call, data: bytes) -> Prompt:
    """The prompt of a response. Raises UnreadableRequestError."""
    found = json_object(data)
    given = found.get("input")
    if not given or not isinstance(given, (str, list)):
        raise UnreadableRequestError("no-input")
    parts = [canonical.tools(found.get("tools"))]
    if template := found.get("prompt"):
        parts.append(canonical.dumps(template) + canonical.END)
    if instructions := fields.text(found.get("instructions")):
        parts.append(canonical.message("system", instructions))
    if isinstance(given, str):
        parts.append(canonical.message("user", given))
    else:
        parts += [_item(item, call.reading.media_bytes) for item in given if isinstance(item, dict)]
    return call.prompt(found, canonical.encode("".join(parts)), _LIMITS)


def _item(item: dict[str, object], media_bytes: int) -> str:
    kind = item.get("type", "message")
    if kind == "message":
        return canonical.message(item.get("role"), canonical.content(item.get("content"), media_bytes))
    if kind == "function_call":
        return canonical.call(item.get("call_id"), item.get("name"), item.get("arguments"))
    if kind == "function_call_output":
        return canonical.result(item.get("call_id"), canonical.content(item.get("output"), media_bytes))
    if kind == "reasoning":
        return ""
    return canonical.message("item", canonical.dumps(item))
