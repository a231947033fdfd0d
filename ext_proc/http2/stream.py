"""One gRPC call on an HTTP/2 connection: its messages out of the bytes of its frames, and its windows."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

OK = 0
_UNIMPLEMENTED, _RESOURCE_EXHAUSTED = 12, 8  # gRPC status codes for messages that are not taken

_MESSAGE_HEAD = 5  # bytes: one for compression, four for the length


class Stream:
    """One call. `messages` wait to be taken; `ended` once the client sends no more; `gone` once it is over.

    `on_news` is called when any of that has changed.
    """

    __slots__ = (
        "_unread", "closing", "ended", "gone", "messages", "number", "on_news", "opened", "pending",
        "receive_window", "send_window",
    )  # fmt: skip

    def __init__(self, number: int, receive_window: int, send_window: int) -> None:
        self.number = number
        self.messages: deque[bytes] = deque()
        self.ended = False
        self.gone = False
        self.on_news: Callable[[], None] = _nothing
        self.opened = False  # our headers are sent
        self.pending = b""  # what the windows hold back
        self.closing: bytes | None = None  # trailers to send after that
        self.receive_window = receive_window
        self.send_window = send_window
        self._unread = bytearray()  # of a message that is not whole yet

    @property
    def unread_bytes(self) -> int:
        """Received, of a message that is not whole yet."""
        return len(self._unread)

    def feed(self, data: bytes, largest: int) -> int:
        """Take bytes of the body. A gRPC status other than 0 where they are no message that we take."""
        if not self._unread and len(data) >= _MESSAGE_HEAD and not data[0]:
            length = int.from_bytes(data[1:_MESSAGE_HEAD], "big")
            # Nearly always: one message in one frame.
            if length <= largest and len(data) == length + _MESSAGE_HEAD:
                self.messages.append(data[_MESSAGE_HEAD:])
                return OK
        unread = self._unread
        unread += data
        while len(unread) >= _MESSAGE_HEAD:
            if unread[0]:
                return _UNIMPLEMENTED
            length = int.from_bytes(unread[1:_MESSAGE_HEAD], "big")
            if length > largest:
                return _RESOURCE_EXHAUSTED
            if len(unread) < length + _MESSAGE_HEAD:
                break
            self.messages.append(bytes(memoryview(unread)[_MESSAGE_HEAD : length + _MESSAGE_HEAD]))
            del unread[: length + _MESSAGE_HEAD]
        return OK


def _nothing() -> None:
    pass
