"""Header compression of HTTP/2 (RFC 7541): decodes whatever a client sends, encodes the little that we do."""

from __future__ import annotations

from collections import deque

Headers = tuple[tuple[bytes, bytes], ...]

TABLE_BYTES = 4096
"""Size of the dynamic table that a client may use until it has read our settings, which allow none."""

_ENTRY_OVERHEAD = 32  # RFC 7541, 4.1: bytes that each entry counts beyond its own
_LARGEST_INTEGER = 1 << 24  # far beyond any header that is accepted
_LONGEST_STRING = 1 << 16
_CACHED_BLOCKS = 256


class HpackError(Exception):
    """A header block that cannot be decoded. The connection cannot go on, since its table is out of step."""


_STATIC: Headers = tuple(
    (name, value.replace(b"+", b" "))
    for name, _, value in (
        word.partition(b"|")
        for word in (
            b":authority :method|GET :method|POST :path|/ :path|/index.html :scheme|http :scheme|https "
            b":status|200 :status|204 :status|206 :status|304 :status|400 :status|404 :status|500 "
            b"accept-charset accept-encoding|gzip,+deflate accept-language accept-ranges accept "
            b"access-control-allow-origin age allow authorization cache-control content-disposition "
            b"content-encoding content-language content-length content-location content-range content-type "
            b"cookie date etag expect expires from host if-match if-modified-since if-none-match if-range "
            b"if-unmodified-since last-modified link location max-forwards proxy-authenticate "
            b"proxy-authorization range referer refresh retry-after server set-cookie "
            b"strict-transport-security transfer-encoding user-agent vary via www-authenticate"
        ).split()
    )
)
"""RFC 7541, appendix A. `+` stands for a space."""

_END_OF_STRING = 256

_CODE_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHF"
    "IBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIX"
    "PRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRS"
    "VVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV"
    "Z"
)
"""RFC 7541, appendix B: bits of each byte's code, A for 5 to Z for 30, and of the end of a string. The code
is canonical: codes of one length follow each other, after all shorter ones."""


def _huffman_codes() -> dict[tuple[int, int], int]:
    """Symbol by length and bits."""
    lengths = [ord(letter) - ord("A") + 5 for letter in _CODE_LENGTHS]
    found: dict[tuple[int, int], int] = {}
    code, previous = 0, 0
    for symbol in sorted(range(len(lengths)), key=lambda s: (lengths[s], s)):
        code <<= lengths[symbol] - previous
        previous = lengths[symbol]
        found[previous, code] = symbol
        code += 1
    return found


_HUFFMAN = _huffman_codes()
_SHORTEST, _LONGEST_PADDING = 5, 7  # bits


def huffman_decoded(data: bytes) -> bytes:
    """The text behind a Huffman code. Raises HpackError."""
    out = bytearray()
    code, length = 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            if length < _SHORTEST:
                continue
            symbol = _HUFFMAN.get((length, code))
            if symbol is None:
                continue
            if symbol == _END_OF_STRING:
                raise HpackError("a string ends inside")
            out.append(symbol)
            code, length = 0, 0
    if length > _LONGEST_PADDING or code != (1 << length) - 1:
        raise HpackError("a string's padding")
    return bytes(out)


class Decoder:
    """Decodes the header blocks of one connection, in order.

    A client that uses no dynamic table sends equal headers as equal bytes, so those are decoded once.
    """

    def __init__(self) -> None:
        self._table: deque[tuple[bytes, bytes]] = deque()  # newest first
        self._table_bytes = 0
        self._table_limit = TABLE_BYTES
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The headers of one block. Raises HpackError."""
        known = self._known.get(block)
        if known is not None:
            return known
        reader = _Reader(block)
        stateless = True
        found: list[tuple[bytes, bytes]] = []
        while reader.left:
            header, plain = self._field(reader)
            stateless &= plain
            if header is not None:
                found.append(header)
        headers = tuple(found)
        if stateless:
            if len(self._known) >= _CACHED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        return headers

    def _field(self, reader: _Reader) -> tuple[tuple[bytes, bytes] | None, bool]:
        """One field, and whether it means the same whatever came before."""
        kind = reader.peek()
        if kind & 0x80:
            index = reader.integer(7)
            return self._entry(index), index <= len(_STATIC)
        if kind & 0xE0 == 0x20:
            self._resize(reader.integer(5))
            return None, False
        indexed = bool(kind & 0x40)
        index = reader.integer(6 if indexed else 4)
        name = self._entry(index)[0] if index else reader.string()
        header = (name, reader.string())
        if indexed:
            self._add(header)
        return header, not indexed and index <= len(_STATIC)

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        try:
            if index:
                return self._table[index - len(_STATIC) - 1]
        except IndexError:
            pass
        raise HpackError(f"index {index}")

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise HpackError(f"a table of {limit} bytes")
        self._table_limit = limit
        self._evict()

    def _add(self, header: tuple[bytes, bytes]) -> None:
        self._table.appendleft(header)
        self._table_bytes += _size(header)
        self._evict()

    def _evict(self) -> None:
        while self._table_bytes > self._table_limit:
            self._table_bytes -= _size(self._table.pop())


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD


class _Reader:
    """Integers and strings of one block."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def peek(self) -> int:
        if not self.left:
            raise HpackError("a block that ends early")
        return self._data[self._at]

    def integer(self, bits: int) -> int:
        """RFC 7541, 5.1."""
        mask = (1 << bits) - 1
        value = self._byte() & mask
        if value < mask:
            return value
        shift = 0
        while True:
            byte = self._byte()
            value += (byte & 0x7F) << shift
            shift += 7
            if value > _LARGEST_INTEGER or shift > 35:
                raise HpackError("a large number")
            if not byte & 0x80:
                return value

    def string(self) -> bytes:
        """RFC 7541, 5.2."""
        coded = bool(self.peek() & 0x80)
        length = self.integer(7)
        if length > min(self.left, _LONGEST_STRING):
            raise HpackError("a string that ends early")
        data = self._data[self._at : self._at + length]
        self._at += length
        return huffman_decoded(data) if coded else data

    def _byte(self) -> int:
        byte = self.peek()
        self._at += 1
        return byte


def encoded(headers: Headers) -> bytes:
    """A block that means the same whatever came before it: nothing indexed but a status of 200."""
    parts = []
    for name, value in headers:
        if (name, value) == (b":status", b"200"):
            parts.append(b"\x88")
        else:
            parts += (b"\x00", _integer(len(name)), name, _integer(len(value)), value)
    return b"".join(parts)


def _integer(value: int) -> bytes:
    """With a prefix of 7 bits."""
    if value < 0x7F:
        return bytes((value,))
    out = bytearray((0x7F,))
    value -= 0x7F
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
