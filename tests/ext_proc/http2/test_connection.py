"""The connection without a network: frames in, calls and frames out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.http2 import frames
from ext_proc.http2.connection import STREAMS_MAX, Connection
from ext_proc.http2.frames import PREFACE, Code, Flag, Kind, Setting, frame
from ext_proc.http2.hpack import Decoder, Headers, encoded

if TYPE_CHECKING:
    from ext_proc.http2.stream import Stream

LARGEST = 4 << 20
HEADERS = ((b":method", b"POST"), (b":path", b"/s/m"))
BLOCK = encoded(HEADERS)
ALL = Flag.END_HEADERS | Flag.END_STREAM


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Client:
    """Sends frames to a connection and reads what it answers."""

    calls: list[tuple[Stream, Headers]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = Connection(lambda *call: self.calls.append(call), LARGEST)
        self.server.receive(PREFACE + frames.settings({}))
        self.sent()

    def open(self, number: int = 1, flags: int = Flag.END_HEADERS) -> Stream:
        self.server.receive(frame(Kind.HEADERS, flags, number, BLOCK))
        return self.calls[-1][0]

    def message(self, number: int, text: bytes, flags: int = 0) -> None:
        self.server.receive(frame(Kind.DATA, flags, number, framed(text)))

    def sent(self) -> list[Frame]:
        data, at, found = bytes(self.server.out), 0, []
        self.server.out.clear()
        while at < len(data):
            length, kind, flags, stream = frames.head(data, at)
            at += frames.HEAD_BYTES + length
            found.append(Frame(kind, flags, stream, data[at - length : at]))
        return found


def framed(text: bytes) -> bytes:
    return b"\x00" + len(text).to_bytes(4, "big") + text


def status(sent: list[Frame]) -> bytes | None:
    """The gRPC status in the trailers among frames."""
    for one in sent:
        if one.kind == Kind.HEADERS and one.flags & Flag.END_STREAM:
            return dict(Decoder().decode(one.payload))[b"grpc-status"]
    return None


def test_carries_a_call_from_its_headers_to_its_trailers() -> None:
    client = Client()
    stream = client.open()
    assert client.calls[0][1] == HEADERS
    client.message(1, b"question", Flag.END_STREAM)
    assert client.server.take(stream) == b"question"
    assert stream.ended
    client.server.write(stream, b"answer")
    client.server.finish(stream)
    opening, data, trailers = client.sent()
    assert dict(Decoder().decode(opening.payload))[b":status"] == b"200"
    assert data.payload == framed(b"answer")
    assert status([trailers]) == b"0"
    assert stream.gone
    assert not client.server.streams


def test_ends_a_call_whose_client_would_send_more() -> None:
    client = Client()
    stream = client.open()
    client.server.write(stream, b"answer")
    client.server.finish(stream)
    *_, trailers, reset = client.sent()
    assert status([trailers]) == b"0"
    assert (reset.kind, reset.payload) == (Kind.RST_STREAM, b"\0\0\0\0")
    client.message(1, b"what was under way", Flag.END_STREAM)
    client.server.receive(frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\x08"))
    assert not client.server.closed


def test_tells_the_status_of_a_call_without_an_answer() -> None:
    client = Client()
    client.server.finish(client.open(flags=ALL), 5, b"nothing here")
    (trailers,) = client.sent()
    headers = dict(Decoder().decode(trailers.payload))
    assert (headers[b":status"], headers[b"grpc-status"]) == (b"200", b"5")
    assert headers[b"grpc-message"] == b"nothing here"


def test_takes_its_bytes_in_any_pieces() -> None:
    calls: list[Stream] = []
    server = Connection(lambda stream, _: calls.append(stream), LARGEST)
    data = (
        PREFACE
        + frame(Kind.HEADERS, Flag.END_HEADERS, 1, BLOCK)
        + frame(Kind.DATA, 0, 1, framed(b"question"))
    )
    for byte in data:
        server.receive(bytes((byte,)))
    assert list(calls[0].messages) == [b"question"]


def test_takes_padding_priorities_and_continued_headers() -> None:
    client = Client()
    start = b"\x02" + b"\0\0\0\0\x10" + BLOCK[:4] + b"\0\0"
    client.server.receive(frame(Kind.HEADERS, Flag.PADDED | Flag.PRIORITY, 1, start))
    assert not client.calls
    client.server.receive(frame(Kind.CONTINUATION, Flag.END_HEADERS, 1, BLOCK[4:]))
    client.server.receive(frame(Kind.DATA, Flag.PADDED, 1, b"\x03" + framed(b"padded") + b"\0\0\0"))
    stream, headers = client.calls[0]
    assert headers == HEADERS
    assert list(stream.messages) == [b"padded"]


def test_answers_pings_and_settings() -> None:
    client = Client()
    client.server.receive(frame(Kind.PING, 0, 0, b"12345678") + frames.settings({}))
    ping, settings = client.sent()
    assert (ping.flags, ping.payload) == (Flag.ACK, b"12345678")
    assert (settings.kind, settings.flags) == (Kind.SETTINGS, Flag.ACK)


def test_sends_no_more_than_the_windows_allow() -> None:
    client = Client()
    client.server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    stream = client.open(flags=ALL)
    client.sent()
    client.server.write(stream, b"x" * 100)
    client.server.finish(stream)
    assert [len(one.payload) for one in client.sent() if one.kind == Kind.DATA] == [10]
    client.server.receive(frames.window_update(1, 50))
    assert [len(one.payload) for one in client.sent()] == [50]
    client.server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1000}))
    sent = client.sent()
    assert [len(one.payload) for one in sent if one.kind == Kind.DATA] == [45]
    assert status(sent) == b"0"


def test_shares_the_connections_window_among_calls() -> None:
    client = Client()
    client.server.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}))
    first, second = client.open(1, ALL), client.open(3, ALL)
    client.sent()
    client.server.write(first, b"x" * 60_000)
    client.server.write(second, b"y" * 60_000)
    assert sum(len(one.payload) for one in client.sent() if one.kind == Kind.DATA) == frames.DEFAULT_WINDOW
    client.server.receive(frames.window_update(0, 1 << 20))
    assert {one.stream for one in client.sent()} == {3}
    assert not second.pending


def test_lets_a_long_stream_go_on_as_it_is_read() -> None:
    client = Client()
    stream = client.open()
    text = b"x" * 16_000
    for _ in range(2 * LARGEST // len(text)):
        client.message(1, text)
        assert client.server.take(stream) == text
    grants = [one for one in client.sent() if one.kind == Kind.WINDOW_UPDATE]
    assert {one.stream for one in grants} == {0, 1}
    assert not stream.gone


def test_ends_a_stream_that_sends_more_than_it_may() -> None:
    client = Client()
    stream = client.open()
    for _ in range(2 * LARGEST // 16_000):
        client.message(1, b"x" * 16_000)  # and nobody reads
    assert stream.gone
    assert Code.FLOW_CONTROL_ERROR in {
        one.payload[-1] for one in client.sent() if one.kind == Kind.RST_STREAM
    }
    assert not client.server.closed


def test_refuses_a_message_that_is_too_large() -> None:
    client = Client()
    client.open()
    client.server.receive(frame(Kind.DATA, 0, 1, b"\x00" + (LARGEST + 1).to_bytes(4, "big")))
    assert status(client.sent()) == b"8"


def test_refuses_calls_beyond_the_most_it_serves() -> None:
    client = Client()
    for n in range(STREAMS_MAX + 1):
        client.open(2 * n + 1)
    assert len(client.calls) == STREAMS_MAX
    (refusal,) = client.sent()
    assert (refusal.kind, refusal.payload[-1]) == (Kind.RST_STREAM, Code.REFUSED_STREAM)


def test_tells_a_call_that_its_client_is_gone() -> None:
    client = Client()
    stream = client.open()
    news: list[bool] = []
    stream.on_news = lambda: news.append(stream.gone)
    client.server.receive(frame(Kind.RST_STREAM, 0, 1, b"\0\0\0\x08"))
    assert news == [True]
    client.server.write(stream, b"too late")
    client.server.finish(stream)
    assert not client.sent()


def test_ends_a_stream_at_its_trailers() -> None:
    client = Client()
    stream = client.open()
    client.server.receive(frame(Kind.HEADERS, ALL, 1, encoded(((b"x", b"y"),))))
    assert stream.ended
    assert len(client.calls) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", Code.FRAME_SIZE_ERROR),
        (frame(Kind.HEADERS, ALL, 2, BLOCK), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, ALL, 1, b"\x80"), Code.COMPRESSION_ERROR),
        (frame(Kind.DATA, 0, 999, b""), Code.PROTOCOL_ERROR),
        (frame(Kind.CONTINUATION, ALL, 1, BLOCK), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, 0, 1, BLOCK) + frame(Kind.PING, 0, 0, b"12345678"), Code.PROTOCOL_ERROR),
        (frame(Kind.HEADERS, ALL | Flag.PADDED, 1, b"\x05ab"), Code.PROTOCOL_ERROR),
        (frame(Kind.PUSH_PROMISE, 0, 1, b"\0\0\0\x02"), Code.PROTOCOL_ERROR),
        (frame(Kind.PING, 0, 0, b"short"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.SETTINGS, 0, 0, b"odd"), Code.FRAME_SIZE_ERROR),
        (frame(Kind.WINDOW_UPDATE, 0, 0, b""), Code.FRAME_SIZE_ERROR),
        (frames.window_update(0, frames.LARGEST_WINDOW), Code.FLOW_CONTROL_ERROR),
    ],
)
def test_ends_the_connection_over_a_broken_rule(data: bytes, code: Code) -> None:
    client = Client()
    stream = client.open(99)
    client.sent()
    client.server.receive(data if data[3] != Kind.HEADERS else data.replace(b"\0\0\0\x01", b"\0\0\0\x65", 1))
    assert client.server.closed
    assert stream.gone
    goodbye = next(one for one in client.sent() if one.kind == Kind.GOAWAY)
    assert goodbye.payload[-1] == code


def test_hangs_up_on_who_speaks_something_else() -> None:
    server = Connection(lambda *_: None, LARGEST)
    server.receive(b"GET / HTTP/1.1\r\n")
    assert server.closed


FRAMES = st.builds(
    frame,
    st.integers(0, 12),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5]),
    st.one_of(st.binary(max_size=40), st.just(BLOCK), st.just(framed(b"text"))),
)


@given(st.lists(st.one_of(FRAMES, st.binary(max_size=40)), max_size=12))
def test_never_raises_for_what_arrives(pieces: list[bytes]) -> None:
    client = Client()
    for piece in pieces:
        client.server.receive(piece)
        for stream, _ in client.calls:
            while stream.messages and not stream.gone:
                client.server.write(stream, client.server.take(stream))
    assert client.server.closed == any(one.kind == Kind.GOAWAY for one in client.sent())
