"""From a body's bytes to JSON: unpacked, no further than allowed, and never at a cost out of proportion."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import jiter

from fleet.errors import UnreadableRequestError

_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip framing
_ZLIB = zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}

_FEED_BYTES = 64 << 10
"""Compressed bytes unpacked at once: where they turn out damaged, what came before is kept."""

SMALL_BYTES = 256 << 10
"""Bodies up to here are parsed without a look at their structure: at worst some 25 ms."""

STRUCTURES_MAX = 20_000
VALUES_MAX = 200_000
"""Objects and lists, and values, that are read of a larger body: a few 10 ms. Conversations have far fewer,
and of a longer list of token ids the beginning will do."""

_LOOK_BYTES = 64 << 10
"""Looked at at once: the structure of so much may come on top of what is allowed."""


class Opened(NamedTuple):
    """What can be read of a body, and how many of its bytes, as they came, that is."""

    data: bytes
    wire_bytes: int
    whole: bool  # nothing was left out of what came


def opened(body: bytes, encoding: str, bytes_max: int) -> Opened:
    """The body unpacked, at most `bytes_max` of it. Raises UnreadableRequestError."""
    named = encoding.strip().lower()
    if not named or named == "identity":
        found = Opened(body, len(body), whole=True)
        if len(body) > bytes_max:
            found = Opened(body[:bytes_max], bytes_max, whole=False)
    else:
        found = _unpacked(body, named, bytes_max)
    return found


def _unpacked(body: bytes, encoding: str, bytes_max: int) -> Opened:
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnreadableRequestError("unknown-compression")
    unpacker = zlib.decompressobj(bits)
    parts: list[bytes] = []
    size = read = 0
    while read < len(body) and size < bytes_max and not unpacker.eof:
        fed = body[read : read + _FEED_BYTES]
        try:
            part = unpacker.decompress(fed, bytes_max - size)
        except zlib.error as error:
            if not size:
                raise UnreadableRequestError("bad-compression") from error
            break
        parts.append(part)
        size += len(part)
        read += len(fed) - len(unpacker.unconsumed_tail)
        if not part and unpacker.unconsumed_tail:
            break
    return Opened(b"".join(parts), read, whole=read >= len(body))


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object that `data` is or begins to be. Raises UnreadableRequestError."""
    if len(data) > SMALL_BYTES:
        data = _readable(data)
    try:
        found = jiter.from_json(data, partial_mode="trailing-strings", catch_duplicate_keys=False)
    except ValueError as error:
        raise UnreadableRequestError("not-json") from error
    if not isinstance(found, dict):
        raise UnreadableRequestError("not-an-object")
    return found


def dense(text: str) -> bool:
    """Whether so much of a text looks like JSON's structure that parsing it again could be dear."""
    return text.count("[") + text.count("{") + text.count(",") > 64 + len(text) // 8


def _readable(data: bytes) -> bytes:
    """`data`, or as much of its beginning as has not too much structure. What its texts hold is none."""
    structures = values = inside = at = 0
    while at < len(data):
        piece = data[at : at + _LOOK_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = data[at : at + _LOOK_BYTES + 1]  # the last character is escaped
        at += len(piece)
        if inside and b'"' not in piece:
            continue  # all of it is in one text
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        outside = piece.split(b'"')
        quotes = len(outside) - 1
        bare = b"".join(outside[inside::2])
        structures += bare.count(b"[") + bare.count(b"{")
        values += bare.count(b",") + quotes // 2
        inside = (inside + quotes) % 2
        if structures > STRUCTURES_MAX or values > VALUES_MAX:
            return data[:at]
    return data
