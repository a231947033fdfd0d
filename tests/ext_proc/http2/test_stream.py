from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ext_proc.http2.stream import OK, Stream

LARGEST = 1000


def framed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 30), max_size=20))
def test_finds_the_messages_however_their_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = Stream(1, 0, 0)
    data = b"".join(framed(message) for message in messages)
    for cut in cuts:
        piece, data = data[:cut], data[cut:]
        assert stream.feed(piece, LARGEST) == OK
    assert stream.feed(data, LARGEST) == OK
    assert list(stream.messages) == messages


def test_refuses_a_message_that_is_too_large_before_its_body_is_there() -> None:
    assert (
        Stream(1, 0, 0).feed(b"\x00" + (LARGEST + 1).to_bytes(4, "big"), LARGEST) == 8
    )  # RESOURCE_EXHAUSTED


def test_refuses_a_compressed_message() -> None:
    assert Stream(1, 0, 0).feed(b"\x01\x00\x00\x00\x00", LARGEST) == 12  # UNIMPLEMENTED
