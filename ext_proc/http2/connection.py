"""The server's side of one HTTP/2 connection that carries gRPC calls, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ext_proc.http2 import frames
from ext_proc.http2.frames import Code, Flag, Kind, Setting
from ext_proc.http2.hpack import Decoder, Headers, HpackError, encoded
from ext_proc.http2.stream import OK, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

STREAMS_MAX = 4096
"""Calls at once on one connection: far above what Envoy's circuit breaker lets through to a picker."""

STREAM_WINDOW = frames.DEFAULT_WINDOW
"""What the other side may send of a call before it is read, as with gRPC's own servers."""

_LARGEST_BLOCK = 1 << 16  # bytes of one call's headers, compressed
_GRANT_BYTES = 1 << 20  # received on the connection before its window is opened again by so much

_CONTENT_TYPE: Headers = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_OPENING = encoded(_CONTENT_TYPE)
_TRAILERS_OK = encoded(((b"grpc-status", b"0"),))


class BrokenProtocolError(Exception):
    """The other side broke the protocol: the connection ends with this code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class Connection:
    """Bytes received in, calls out; answers in, bytes to send in `out`. `closed`: send those and hang up."""

    def __init__(self, on_call: Callable[[Stream, Headers], None], largest_message: int) -> None:
        """`on_call` gets every new call; messages of more than `largest_message` bytes are refused."""
        self.out = bytearray()
        self.closed = False
        self.streams: dict[int, Stream] = {}
        self._on_call = on_call
        self._largest = largest_message
        self._decoder = Decoder()
        self._rest = b""  # of a frame that is not whole yet
        self._greeted = False
        self._last = 0  # the newest stream
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and headers that go on
        self._granted = frames.LARGEST_WINDOW  # what the other side may still send in all
        self._send_window = frames.DEFAULT_WINDOW
        self._stream_send_window = frames.DEFAULT_WINDOW
        self._stream_window = STREAM_WINDOW
        # PRIORITY, GOAWAY and kinds that nobody knows change nothing.
        self._others: dict[int, Callable[[int, int, bytes], None]] = {
            Kind.RST_STREAM: self._on_reset,
            Kind.SETTINGS: self._on_settings,
            Kind.PING: self._on_ping,
            Kind.WINDOW_UPDATE: self._on_window_update,
            Kind.CONTINUATION: self._on_continuation,
            Kind.PUSH_PROMISE: self._on_push,
        }
        self.out += frames.settings(
            {
                Setting.HEADER_TABLE_SIZE: 0,  # so that equal headers are equal bytes
                Setting.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                Setting.INITIAL_WINDOW_SIZE: self._stream_window,
                Setting.MAX_HEADER_LIST_SIZE: _LARGEST_BLOCK,
            }
        )
        self.out += frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)

    def receive(self, data: bytes) -> None:
        """Take what arrived. Never raises for it."""
        if self.closed:
            return
        try:
            self._receive(self._rest + data if self._rest else data)
        except HpackError:
            self.close(Code.COMPRESSION_ERROR)
        except BrokenProtocolError as error:
            self.close(error.code)

    def close(self, code: Code = Code.NO_ERROR) -> None:
        """Take no more and end what runs."""
        self.refuse(code)
        self.closed = True
        for stream in list(self.streams.values()):
            self._drop(stream)

    def refuse(self, code: Code = Code.NO_ERROR) -> None:
        """Tell the other side to start no further call."""
        self.out += frames.goaway(self._last, code)

    def take(self, stream: Stream) -> bytes:
        """The next message of a call that has one; room for as much more is granted in time."""
        message = stream.messages.popleft()
        if not stream.messages:
            self._grant(stream)
        return message

    def write(self, stream: Stream, message: bytes) -> None:
        """Answer a call with one message; nothing happens if it is over."""
        if stream.gone:
            return
        if not stream.opened:
            stream.opened = True
            self.out += frames.frame(Kind.HEADERS, Flag.END_HEADERS, stream.number, _OPENING)
        stream.pending += b"\x00" + len(message).to_bytes(4, "big") + message
        self._pump(stream)

    def finish(self, stream: Stream, status: int = OK, details: bytes = b"") -> None:
        """End a call with a gRPC status; `details` in printable ASCII."""
        if stream.gone or stream.closing is not None:
            return
        fields: Headers = () if stream.opened else _CONTENT_TYPE
        if status or fields:
            fields += ((b"grpc-status", b"%d" % status),)
            fields += ((b"grpc-message", details),) if details else ()
            stream.closing = encoded(fields)
        else:
            stream.closing = _TRAILERS_OK
        self._pump(stream)

    def reset(self, stream: Stream, code: Code) -> None:
        """End a call at once."""
        if not stream.gone:
            self.out += frames.reset(stream.number, code)
            self._drop(stream)

    def _grant(self, stream: Stream) -> None:
        """Have the other side send on, for a message that is not whole, or for the next one."""
        if not stream.ended and stream.receive_window < self._stream_window // 2:
            grant = self._stream_window - stream.receive_window
            self.out += frames.window_update(stream.number, grant)
            stream.receive_window += grant

    def _pump(self, stream: Stream) -> None:
        """Send what the windows allow, and the end after all of it."""
        at, end = 0, len(stream.pending)
        while at < end:
            size = min(end - at, frames.LARGEST_PAYLOAD, stream.send_window, self._send_window)
            if size <= 0:
                stream.pending = stream.pending[at:]
                return
            self.out += frames.frame(Kind.DATA, 0, stream.number, stream.pending[at : at + size])
            at += size
            stream.send_window -= size
            self._send_window -= size
        stream.pending = b""
        if stream.closing is not None:
            flags = Flag.END_HEADERS | Flag.END_STREAM
            self.out += frames.frame(Kind.HEADERS, flags, stream.number, stream.closing)
            if not stream.ended:  # RFC 9113, 8.1: the rest of the request is not needed
                self.out += frames.reset(stream.number, Code.NO_ERROR)
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        stream.gone = True
        self.streams.pop(stream.number, None)
        stream.on_news()

    def _receive(self, data: bytes) -> None:
        at = 0
        if not self._greeted:
            if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
                raise BrokenProtocolError(Code.PROTOCOL_ERROR)
            if len(data) < len(frames.PREFACE):
                self._rest = data
                return
            self._greeted, at = True, len(frames.PREFACE)
        end = len(data)
        while end - at >= frames.HEAD_BYTES:
            length, kind, flags, number = frames.head(data, at)
            if length > frames.LARGEST_PAYLOAD:
                raise BrokenProtocolError(Code.FRAME_SIZE_ERROR)
            start = at + frames.HEAD_BYTES
            if end - start < length:
                break
            at = start + length
            self._on_frame(kind, flags, number, data[start:at])
        self._rest = data[at:]

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != Kind.CONTINUATION:
            raise BrokenProtocolError(Code.PROTOCOL_ERROR)
        if kind == Kind.DATA:
            self._on_data(flags, number, payload)
        elif kind == Kind.HEADERS:
            self._on_headers(flags, number, payload)
        elif kind in self._others:
            self._others[kind](flags, number, payload)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        self._granted -= len(payload)
        if self._granted < frames.LARGEST_WINDOW - _GRANT_BYTES:
            self.out += frames.window_update(0, frames.LARGEST_WINDOW - self._granted)
            self._granted = frames.LARGEST_WINDOW
        if not 0 < number <= self._last:
            raise BrokenProtocolError(Code.PROTOCOL_ERROR)
        stream = self.streams.get(number)
        if stream is None:
            return  # of a call that is over
        stream.receive_window -= len(payload)
        if stream.ended or stream.receive_window < 0:
            self.reset(stream, Code.FLOW_CONTROL_ERROR)
            return
        status = stream.feed(_unpadded(flags, payload), self._largest)
        stream.ended = bool(flags & Flag.END_STREAM)
        if status:
            self.finish(stream, status)
            return
        if stream.unread_bytes and not stream.messages:
            self._grant(stream)
        stream.on_news()

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        payload = _unpadded(flags, payload)
        if flags & Flag.PRIORITY:
            payload = payload[5:]
        if not number % 2:
            raise BrokenProtocolError(Code.PROTOCOL_ERROR)
        if flags & Flag.END_HEADERS:
            self._open(number, flags, payload)
        else:
            self._block = number, flags, bytearray(payload)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise BrokenProtocolError(Code.PROTOCOL_ERROR)
        _, first, block = self._block
        block += payload
        if len(block) > _LARGEST_BLOCK:
            raise BrokenProtocolError(Code.PROTOCOL_ERROR)
        if flags & Flag.END_HEADERS:
            self._block = None
            self._open(number, first, bytes(block))

    def _open(self, number: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)  # always: the next block may refer to it
        if number <= self._last:
            self._on_trailers(number)
            return
        self._last = number
        if len(self.streams) >= STREAMS_MAX:
            self.out += frames.reset(number, Code.REFUSED_STREAM)
            return
        stream = Stream(number, self._stream_window, self._stream_send_window)
        stream.ended = bool(flags & Flag.END_STREAM)
        self.streams[number] = stream
        self._on_call(stream, headers)

    def _on_trailers(self, number: int) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            stream.ended = True
            stream.on_news()

    def _on_reset(self, _flags: int, number: int, _payload: bytes) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            self._drop(stream)

    def _on_settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            return
        if len(payload) % 6:
            raise BrokenProtocolError(Code.FRAME_SIZE_ERROR)
        for key, value in frames.pairs(payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise BrokenProtocolError(Code.FLOW_CONTROL_ERROR)
                change, self._stream_send_window = value - self._stream_send_window, value
                for stream in list(self.streams.values()):
                    stream.send_window += change
                    self._pump(stream)
        self.out += frames.frame(Kind.SETTINGS, Flag.ACK, 0)

    def _on_ping(self, flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise BrokenProtocolError(Code.FRAME_SIZE_ERROR)
        if not flags & Flag.ACK:
            self.out += frames.frame(Kind.PING, Flag.ACK, 0, payload)

    def _on_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenProtocolError(Code.FRAME_SIZE_ERROR)
        grant = frames.number(payload)
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                stream.send_window += grant
                self._pump(stream)
            return
        self._send_window += grant
        if self._send_window > frames.LARGEST_WINDOW:
            raise BrokenProtocolError(Code.FLOW_CONTROL_ERROR)
        for stream in list(self.streams.values()):
            if stream.pending:
                self._pump(stream)

    def _on_push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise BrokenProtocolError(Code.PROTOCOL_ERROR)  # clients cannot


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & Flag.PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise BrokenProtocolError(Code.PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
