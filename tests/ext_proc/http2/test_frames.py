from __future__ import annotations

from ext_proc.http2 import frames
from ext_proc.http2.frames import Code, Flag, Kind, Setting


def test_reads_the_head_of_what_it_writes() -> None:
    made = frames.frame(Kind.DATA, Flag.END_STREAM, 7, b"x" * 70_000)
    assert frames.head(b"?" + made, 1) == (70_000, Kind.DATA, Flag.END_STREAM, 7)
    assert len(made) == frames.HEAD_BYTES + 70_000


def test_ignores_the_reserved_bit_of_a_stream() -> None:
    made = bytearray(frames.frame(Kind.DATA, 0, 7))
    made[5] |= 0x80
    assert frames.head(bytes(made), 0)[3] == 7


def test_reads_the_settings_that_it_writes() -> None:
    made = frames.settings({Setting.HEADER_TABLE_SIZE: 0, Setting.INITIAL_WINDOW_SIZE: 99})
    assert frames.pairs(made[frames.HEAD_BYTES :]) == [(1, 0), (4, 99)]


def test_writes_resets_goodbyes_and_grants_as_the_rfc_says() -> None:
    assert frames.reset(3, Code.REFUSED_STREAM) == bytes.fromhex("000004 03 00 00000003 00000007")
    assert frames.goaway(5, Code.NO_ERROR) == bytes.fromhex("000008 07 00 00000000 00000005 00000000")
    assert frames.window_update(0, 258) == bytes.fromhex("000004 08 00 00000000 00000102")
