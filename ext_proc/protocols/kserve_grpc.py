"""KServe's v2 protocol over gRPC: a framed ModelInferRequest, as far as it came, to a prompt.

The message is walked field by field and only what says something about the prompt is looked at, so that a
message cut anywhere still yields its beginning, and bytes that are no message end the walk.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ext_proc.protocols import body, fields, tensors
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ext_proc.protocols.call import Call
    from ext_proc.request import Prompt

ENCODING_HEADER = "grpc-encoding"
"""How compressed messages of a call are compressed."""

FRAME_HEADER_BYTES = 5
"""Before each message: whether it is compressed, and its length in four bytes, big-endian."""

FIELDS_MAX = 10_000
"""Of one request, however deep they are: some 10 ms. Real ones have dozens."""

PACKED_BYTES_MAX = 512 << 10
"""Of numbers in their packed form, in one request: 200,000 token ids or so, a few ms."""

_NAME_BYTES = fields.NAME_MAX

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

_MODEL_NAME, _PARAMETERS, _INPUTS, _RAW_CONTENTS = 1, 4, 5, 7  # of ModelInferRequest
_TENSOR_NAME, _DATATYPE, _CONTENTS = 1, 2, 5  # of its inputs
_BOOLS, _BYTES_CONTENTS = 1, 8  # of their contents; between them integers of four kinds,
_LAST_INTEGERS = 5  # up to here: the others are floats
_KEY, _VALUE = 1, 2  # of a parameter; its value is one of:
_BOOL, _INT64, _STRING, _DOUBLE, _UINT64 = 1, 2, 3, 4, 5


def read(call: Call, data: bytes) -> Prompt:
    """The prompt of a ModelInfer. Its answer comes whole. Raises UnreadableRequestError."""
    frame = _frame(call, data)
    walked = _walk(frame.message)
    prompt = tensors.prompt_of(call, walked.model, walked.values(), walked.parameters, streamed=False)
    return replace(prompt, read_bytes=frame.read_bytes, whole_bytes=frame.whole_bytes)


class _Frame(NamedTuple):
    message: bytes  # unpacked, as far as it came and is read
    read_bytes: int  # of the body, to get it
    whole_bytes: int  # that the body will have


def _frame(call: Call, data: bytes) -> _Frame:
    """The first message of a call's body."""
    if len(data) < FRAME_HEADER_BYTES or data[0] > 1:
        raise UnreadableRequestError("no-grpc-message")
    whole = FRAME_HEADER_BYTES + int.from_bytes(data[1:FRAME_HEADER_BYTES], "big")
    message = data[FRAME_HEADER_BYTES:whole]
    encoding = call.headers.get(ENCODING_HEADER, "") if data[0] else ""
    if data[0] and encoding.strip().lower() in ("", "identity"):
        raise UnreadableRequestError("unknown-compression")
    opened = body.opened(message, encoding, call.reading.bytes_max)
    return _Frame(opened.data, FRAME_HEADER_BYTES + opened.wire_bytes, whole)


@dataclass(slots=True)
class _Tensor:
    name: str = ""
    datatype: str = ""
    contents: list[object] | array[int] | None = None  # None: among the raw ones


@dataclass(slots=True)
class _Walked:
    """What was found on the way through a message."""

    model: str = ""
    inputs: list[_Tensor] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    parameters: dict[str, object] = field(default_factory=dict)

    def values(self) -> dict[str, object]:
        """The elements of each input that is read, by name."""
        raw = iter(self.raw)
        found: dict[str, object] = {}
        for tensor in self.inputs:
            content = tensor.contents
            if content is None:
                own = next(raw, b"")
                if tensor.name in tensors.NAMES and tensor.name not in found:
                    found[tensor.name] = tensors.decode(tensor.datatype, own)
            elif tensor.name in tensors.NAMES:
                found.setdefault(tensor.name, content)
        return found


class _Field(NamedTuple):
    number: int
    kind: int  # wire type
    value: int  # of a varint
    data: memoryview  # of anything else, maybe cut


_EMPTY = memoryview(b"")


class _Wire:
    """Protobuf's wire format without a schema, and how much of it may still be looked at."""

    def __init__(self) -> None:
        self._left = FIELDS_MAX
        self._packed_left = PACKED_BYTES_MAX

    def fields(self, data: memoryview) -> Iterator[_Field]:
        """The fields of one message in order, up to where it is cut or makes no sense."""
        at, end = 0, len(data)
        while at < end and self._left > 0:
            self._left -= 1
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            if tag < 8:  # cut, or of no field
                return
            if kind == _VARINT:
                value, at = _varint(data, at)
                if value < 0:
                    return
                yield _Field(number, kind, value, _EMPTY)
                continue
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
            if kind == _BYTES:
                size, at = _varint(data, at)
            if size < 0:
                return
            yield _Field(number, kind, 0, data[at : at + size])
            at += size

    def packed(self, data: memoryview) -> bytes:
        """Varints as 64-bit integers, all at once, since a prompt has thousands; a cut one is left out."""
        octets = np.frombuffer(data[: self._packed_left], dtype=np.uint8)
        self._packed_left -= len(octets)
        ends = np.flatnonzero(octets < 0x80)
        starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
        lengths = np.minimum(ends - starts + 1, 10)
        values = np.zeros(len(ends), dtype=np.uint64)
        for n in range(int(lengths.max(initial=0))):
            there = lengths > n
            part = octets[starts[there] + n].astype(np.uint64) & np.uint64(0x7F)
            values[there] |= part << np.uint64(7 * n)
        return values.tobytes()


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends; -1 where there is none."""
    value = 0
    for n, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + n + 1
    return -1, at


def _walk(message: bytes) -> _Walked:
    """All that a request says about its prompt."""
    wire, found = _Wire(), _Walked()
    for number, kind, _, data in wire.fields(memoryview(message)):
        if kind != _BYTES:
            continue
        if number == _MODEL_NAME:
            found.model = _text(data)
        elif number == _PARAMETERS:
            name, value = _parameter(wire, data)
            found.parameters[name] = value
        elif number == _INPUTS:
            found.inputs.append(_tensor(wire, data))
        elif number == _RAW_CONTENTS:
            found.raw.append(bytes(data))
    return found


def _tensor(wire: _Wire, message: memoryview) -> _Tensor:
    tensor = _Tensor()
    for number, kind, _, data in wire.fields(message):
        if kind != _BYTES:
            continue
        if number == _TENSOR_NAME:
            tensor.name = _text(data)
        elif number == _DATATYPE:
            tensor.datatype = _text(data)
        elif number == _CONTENTS:
            tensor.contents = _contents(wire, data) or None
    return tensor


def _contents(wire: _Wire, message: memoryview) -> list[object] | array[int]:
    """Elements in their typed form: texts, or integers that came packed or one by one."""
    texts: list[object] = []
    numbers: array[int] = array("q")
    for number, kind, value, data in wire.fields(message):
        if number == _BYTES_CONTENTS and kind == _BYTES:
            texts.append(bytes(data))
        elif _BOOLS <= number <= _LAST_INTEGERS:
            if kind == _VARINT:
                numbers.append(_signed(value))
            elif kind == _BYTES:
                numbers.frombytes(wire.packed(data))
    return texts or numbers


def _parameter(wire: _Wire, message: memoryview) -> tuple[str, object]:
    name, value = "", None
    for number, kind, _, data in wire.fields(message):
        if kind != _BYTES:
            continue
        if number == _KEY:
            name = _text(data)
        elif number == _VALUE:
            value = _parameter_value(wire, data)
    return name, value


def _parameter_value(wire: _Wire, message: memoryview) -> object:
    found: object = None
    for number, kind, value, data in wire.fields(message):
        if kind == _VARINT and number in (_BOOL, _INT64, _UINT64):
            found = {_BOOL: bool(value), _INT64: _signed(value), _UINT64: value}[number]
        elif kind == _BYTES and number == _STRING:
            found = _text(data)
        elif kind == _FIXED64 and number == _DOUBLE and len(data) == 8:
            found = struct.unpack("<d", data)[0]
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(data: memoryview) -> str:
    return bytes(data[:_NAME_BYTES]).decode("utf-8", "replace")
