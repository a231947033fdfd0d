"""HTTP/2 frames as bytes (RFC 9113, 6)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEAD_BYTES = 9
LARGEST_PAYLOAD = 16_384
"""What every peer takes and what we take: its default, never raised."""

LARGEST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65_535

_HEAD = Struct(">HBBBI")
_PAIR = Struct(">HI")
_NUMBER = Struct(">I")


class Kind(IntEnum):
    """Frame types."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntEnum):
    """Frame flags; ACK and END_STREAM share a bit."""

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Settings that matter here."""

    HEADER_TABLE_SIZE = 1
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Error codes."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9


def head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame that begins at `at`."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & LARGEST_WINDOW


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """Our settings."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_PAIR.pack(key, value) for key, value in values.items()))


def pairs(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a payload whose length is a multiple of 6."""
    return [(key, value) for key, value in _PAIR.iter_unpack(payload)]


def number(payload: bytes) -> int:
    """The 31 bits that a payload begins with."""
    (value,) = _NUMBER.unpack_from(payload)
    return int(value) & LARGEST_WINDOW


def window_update(stream: int, grant: int) -> bytes:
    """Let the other side send `grant` bytes more; stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(grant))


def reset(stream: int, code: Code) -> bytes:
    """End a stream at once."""
    return frame(Kind.RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last: int, code: Code) -> bytes:
    """No stream after `last` is served."""
    return frame(Kind.GOAWAY, 0, 0, _NUMBER.pack(last) + _NUMBER.pack(code))
