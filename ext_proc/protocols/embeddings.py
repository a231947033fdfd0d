"""OpenAI embeddings: work without a cache and without an answer to decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.protocols import fields
from ext_proc.protocols.body import json_object
from ext_proc.protocols.completions import plain
from ext_proc.request import Prompt

if TYPE_CHECKING:
    from ext_proc.protocols.call import Call


def read(call: Call, data: bytes) -> Prompt:
    """What embeddings are wanted of. Raises UnreadableRequestError."""
    found = json_object(data)
    text, count = plain(found.get("input"), "no-input")
    return Prompt(
        model=fields.name(found.get("model")),
        text=text,
        streamed=False,
        output_tokens=0,
        session=call.session(found),
        cache_salt=fields.name(found.get("cache_salt")),
        lora=fields.lora(found),
        tokens=count,
        cacheable=False,
    )
