"""Triton over HTTP: `generate` and `generate_stream`, and KServe's `infer` as JSON or with binary tensors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ext_proc.protocols import fields, tensors
from ext_proc.protocols.body import json_object
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

PATH = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/[^/]+)?/(?P<verb>generate|generate_stream|infer)$"
)
"""The end of a path, without its query; a gateway may have put a prefix before it."""

JSON_LENGTH_HEADER = "inference-header-content-length"
"""How many bytes of JSON come before binary tensors; 0: none, the body is the one tensor."""

_LENGTH_DIGITS_MAX = 12
"""Of a length that can be true: a terabyte."""


def read_generate(call: Call, data: bytes) -> Prompt:
    """A prompt whose answer comes whole. Raises UnreadableRequestError."""
    return _generate(call, data, streamed=False)


def read_generate_stream(call: Call, data: bytes) -> Prompt:
    """A prompt whose answer comes as events. Raises UnreadableRequestError."""
    return _generate(call, data, streamed=True)


def read_infer(call: Call, data: bytes) -> Prompt:
    """A prompt among tensors. Raises UnreadableRequestError."""
    announced = call.headers.get(JSON_LENGTH_HEADER, "")
    if not announced:
        head, tail = data, b""
    elif announced.isascii() and announced.isdigit() and len(announced) <= _LENGTH_DIGITS_MAX:
        head, tail = data[: int(announced)], data[int(announced) :]
    else:
        raise UnreadableRequestError("bad-header-length")
    model = _model(call.path)
    if announced and not head and tail:
        return tensors.prompt_of(call, model, {tensors.TEXT_NAMES[0]: tail}, {}, streamed=False)
    found = json_object(head)
    parameters = fields.mapping(found.get("parameters"))
    return tensors.prompt_of(call, model, _values(found.get("inputs"), tail), parameters, streamed=False)


def _generate(call: Call, data: bytes, *, streamed: bool) -> Prompt:
    found = json_object(data)
    parameters = fields.mapping(found.get("parameters"))
    return tensors.prompt_of(call, _model(call.path), found, parameters, streamed=streamed)


def _values(inputs: object, tail: bytes) -> dict[str, object]:
    """Tensors by name. Binary ones follow each other in `tail` as `inputs` lists them."""
    found: dict[str, object] = {}
    at = 0
    for tensor in inputs if isinstance(inputs, list) else ():
        if not isinstance(tensor, dict):
            continue
        name = tensor.get("name")
        size = fields.mapping(tensor.get("parameters")).get("binary_data_size")
        wanted = isinstance(name, str) and name in tensors.NAMES and name not in found
        if isinstance(size, int) and size >= 0:
            if wanted:
                found[str(name)] = tensors.decode(tensor.get("datatype"), tail[at : at + size])
            at += size
        elif wanted:
            found[str(name)] = tensor.get("data")
    return found


def _model(path: str) -> str:
    matched = PATH.search(path.partition("?")[0])
    return "" if matched is None else unquote(matched["model"])[: fields.NAME_MAX]
