"""What KServe requests carry to Triton, in whatever form: named tensors and parameters, to a prompt.

Values may be JSON's (texts, numbers, lists of them, nested as their shape says) or decoded from bytes by
`decode`. The names are those of TensorRT-LLM's ensemble, of its engine alone, of its LLM-API model and of
Triton's vLLM backend.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from ext_proc.protocols import canonical, fields, tokens
from ext_proc.request import Prompt
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.protocols.call import Call

TEXT_NAMES = ("text_input", "prompt")
IDS_NAME = "input_ids"
LENGTH_NAME = "input_lengths"
LIMIT_NAMES = ("max_tokens", "request_output_len", "sampling_param_max_tokens")
STREAM_NAMES = ("stream", "streaming")
LORA_NAMES = ("lora_task_id", "lora_name")
NAMES = frozenset({*TEXT_NAMES, IDS_NAME, LENGTH_NAME, *LIMIT_NAMES, *STREAM_NAMES, *LORA_NAMES})
"""Tensors that are read; all others may be left undecoded."""

_TYPECODES = {
    "BOOL": "B",
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
}
"""KServe's integers as those of `array`, whose sizes are these on every Linux."""

_LENGTH_BYTES = 4
"""Before each element of a BYTES tensor, little-endian."""

_ELEMENTS_MAX = 10_000
"""Of a BYTES tensor that are read: a prompt has one, a batch a few hundred."""


_NARROW_BYTES_MAX = 1 << 20
"""Of a tensor of one- or two-byte integers: flags and counts. Nobody's token ids are so small, and to widen a
million of them takes 20 ms."""

_ID_BYTES = 4  # of an integer that may be a token id


def decode(datatype: object, raw: bytes) -> Sequence[object] | None:
    """The elements of a tensor in its binary form, as far as they are there; None for kinds not read here."""
    if datatype == "BYTES":
        return _texts(raw)
    code = _TYPECODES.get(datatype) if isinstance(datatype, str) else None
    if code is None:
        return None
    numbers = array(code)
    length = len(raw) if numbers.itemsize >= _ID_BYTES else min(len(raw), _NARROW_BYTES_MAX)
    numbers.frombytes(raw[: length - length % numbers.itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def prompt_of(
    call: Call,
    model: str,
    values: Mapping[str, object],
    parameters: Mapping[str, object],
    *,
    streamed: bool | None = None,
) -> Prompt:
    """The prompt among a request's tensors and parameters.

    `streamed`: whether the way it came says so; None: `stream` or `streaming` decide. Raises
    UnreadableRequestError.
    """
    text, count = _prompt(values)
    either = {**parameters, **values}
    limits = {name: _first(either.get(name)) for name in LIMIT_NAMES}
    says_so = any(_first(either.get(name)) in (True, 1) for name in STREAM_NAMES)
    return Prompt(
        model=model,
        text=text,
        streamed=says_so if streamed is None else streamed,
        output_tokens=fields.output_limit(limits, LIMIT_NAMES),
        session=call.session({**values, "parameters": parameters}),
        cache_salt=fields.name(either.get("cache_salt")),
        lora=next((found for name in LORA_NAMES if (found := _word(_first(either.get(name))))), ""),
        tokens=count,
    )


def _prompt(values: Mapping[str, object]) -> tuple[bytes, int | None]:
    for name in TEXT_NAMES:
        texts = [text for text in _flat(values.get(name)) if isinstance(text, (str, bytes))]
        if any(texts):
            raw = [text if isinstance(text, bytes) else canonical.encode(text) for text in texts]
            return canonical.END.encode().join(raw), None
    ids = _flat(values.get(IDS_NAME))
    if not len(ids):
        raise UnreadableRequestError("no-input")
    length = _first(values.get(LENGTH_NAME))
    if isinstance(length, int) and 0 < length < len(ids) and len(_flat(values.get(LENGTH_NAME))) == 1:
        ids = ids[:length]  # what follows pads it
    return tokens.to_bytes(ids), len(ids)


def _texts(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor; the last may be cut."""
    found: list[bytes] = []
    at = 0
    while at + _LENGTH_BYTES <= len(raw) and len(found) < _ELEMENTS_MAX:
        length = int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        found.append(raw[at : at + length])
        at += length
    return found


def _flat(value: object) -> Sequence[object]:
    """A tensor's elements in order, however they are nested: shapes have two dimensions here."""
    if value is None:
        return ()
    if not isinstance(value, (list, array)):
        return (value,)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [element for row in value if isinstance(row, list) for element in row]
    return value


def _first(value: object) -> object:
    flat = _flat(value)
    return flat[0] if len(flat) else None


def _word(value: object) -> str:
    """A name, or a number that names something, as text; 0 names nothing."""
    if isinstance(value, bytes):
        return value[: fields.NAME_MAX].decode("utf-8", "replace")
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 64:
        return str(value)
    return fields.name(value)
