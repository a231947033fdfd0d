"""Against the examples of RFC 7541, appendix C, and against whatever bytes there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.http2.hpack import Decoder, HpackError, encoded, huffman_decoded

FIRST = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com"))
SECOND = (*FIRST, (b"cache-control", b"no-cache"))
THIRD = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(
            (
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ),
            id="plain",
        ),
        pytest.param(
            (
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ),
            id="huffman",
        ),
    ],
)
def test_decodes_the_rfcs_requests_that_build_on_each_other(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == [FIRST, SECOND, THIRD]


def test_a_block_that_refers_to_the_table_is_decoded_anew_each_time() -> None:
    decoder = Decoder()
    adds_a, adds_b, newest = b"\x40\x01a\x011", b"\x40\x01b\x012", b"\xbe"
    decoder.decode(adds_a)
    assert decoder.decode(newest) == ((b"a", b"1"),)
    decoder.decode(adds_b)
    assert decoder.decode(newest) == ((b"b", b"2"),)


def test_forgets_what_the_table_has_no_room_for() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x011")
    decoder.decode(b"\x20")  # a table of no bytes
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\xff\x01",  # a number without end
        b"\x40\x05ab",  # a name that ends early
        b"\x3f\xff\x7f",  # a table larger than we allow
        b"\x00\x81\xff\x00",  # padding of eight bits
    ],
)
def test_refuses_what_breaks_the_rules(block: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(block)


def test_refuses_the_end_of_a_string_inside_one() -> None:
    with pytest.raises(HpackError):
        huffman_decoded(b"\xff\xff\xff\xff")


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300))))
def test_reads_what_it_writes(headers: list[tuple[bytes, bytes]]) -> None:
    assert Decoder().decode(encoded(tuple(headers))) == tuple(headers)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_raises_nothing_else_whatever_comes(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for block in blocks:
        try:
            headers = decoder.decode(block)
        except HpackError:
            return
        assert all(isinstance(part, bytes) for header in headers for part in header)
