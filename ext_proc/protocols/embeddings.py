"""OpenAI embeddings: work without a cache and without an answer to decode."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ext_proc.protocols.body import json_object
from ext_proc.protocols.completions import plain

if TYPE_CHECKING:
    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt


def read(call: Call, data: bytes) -> Prompt:
    """What embeddings are wanted of. Raises UnreadableRequestError."""
    found = json_object(data)
    text, count = plain(found.get("input"), "no-input")
    prompt = call.prompt(found, text, (), count)
    return replace(prompt, streamed=False, output_tokens=0, cacheable=False)
