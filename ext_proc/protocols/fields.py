"""Values out of untrusted JSON: what was expected, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OUTPUT_TOKENS_MAX = 1 << 20
"""Of any answer: what a client allows beyond it means no limit."""

NAME_MAX = 512
"""Longer names of models and salts are cut: they are hashed, and some are remembered."""


def text(value: object) -> str:
    """A string as it is, anything else as ''."""
    return value if isinstance(value, str) else ""


def name(value: object) -> str:
    """A string of reasonable length, anything else as ''."""
    return value[:NAME_MAX] if isinstance(value, str) else ""


def mapping(value: object) -> dict[str, object]:
    """An object as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def output_limit(fields: Mapping[str, object], keys: Iterable[str]) -> int | None:
    """Tokens that the answer may have by the first of `keys` that says so; None where none does."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, OUTPUT_TOKENS_MAX)
    return None


def lora(fields: Mapping[str, object]) -> str:
    """The adapter that a `lora_request` names, as trtllm-serve takes it, or ''."""
    request = fields.get("lora_request")
    if not isinstance(request, dict):
        return ""
    named = name(request.get("lora_name"))
    number = request.get("lora_int_id")
    if not named and isinstance(number, int) and number is not True and 0 < number < 1 << 63:
        named = str(number)
    return named
