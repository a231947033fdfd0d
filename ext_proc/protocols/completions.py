"""OpenAI completions: a plain prompt, several of them, or token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.protocols import canonical, tokens
from ext_proc.protocols.body import json_object
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

_LIMITS = ("max_tokens", "max_completion_tokens")


def read(call: Call, data: bytes) -> Prompt:
    """The prompt of a completion. Raises UnreadableRequestError."""
    found = json_object(data)
    ids = found.get("prompt_token_ids")
    text, count = plain(ids if tokens.are_ids(ids) else found.get("prompt"), "no-prompt")
    return call.prompt(found, text, _LIMITS, count)


def plain(prompt: object, missing: str) -> tuple[bytes, int | None]:
    """A text, a list of texts, a list of ids, or a list of those, and how many ids it has.

    Several follow each other. Raises UnreadableRequestError, with the reason `missing` for all else.
    """
    if isinstance(prompt, str) and prompt:
        return canonical.encode(prompt), None
    if not isinstance(prompt, list) or not prompt:
        raise UnreadableRequestError(missing)
    if isinstance(prompt[0], list):
        return _ids([id_ for ids in prompt if isinstance(ids, list) for id_ in ids], missing)
    if tokens.are_ids(prompt):
        return _ids(prompt, missing)
    if not all(isinstance(text, str) for text in prompt):
        raise UnreadableRequestError(missing)
    return canonical.encode(canonical.END.join(prompt)), None


def _ids(ids: list[object], missing: str) -> tuple[bytes, int]:
    if not ids:
        raise UnreadableRequestError(missing)
    return tokens.to_bytes(ids), len(ids)
