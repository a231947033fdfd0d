"""Coverage-guided fuzzing of all that reads strangers' bytes: `python tests/fuzz/harness.py -runs=100000`.

Takes libFuzzer's options. The first byte of an input chooses what is fuzzed: a protocol's parser, with or
without compression, a whole ext_proc exchange with our own Envoy or with a gateway, Envoy's access log, or an
HTTP/2 connection. Anything raised but UnreadableRequestError is a finding, and so is the reason of last
resort, and what an exchange leaves in the ledger.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import atheris
from envoy.service.accesslog.v3 import als_pb2

sys.path.insert(0, str(Path(__file__).parents[2]))

INSTRUMENTED = (
    "answer", "completions", "duplex", "gateway_reply", "http2", "opening", "protocols", "session", "stream",
)  # fmt: skip

with atheris.instrument_imports(include=[f"ext_proc.{name}" for name in INSTRUMENTED]):
    from ext_proc import completions, protocols
    from ext_proc.duplex import DuplexStream, Rules
    from ext_proc.http2.connection import Connection
    from ext_proc.http2.frames import PREFACE, Flag, Kind, frame
    from ext_proc.http2.hpack import encoded
    from ext_proc.picker import Picker
    from ext_proc.pools import Pools
    from ext_proc.protocols.call import UNFORESEEN
    from ext_proc.reader import reading
    from ext_proc.steer import Steerer
    from ext_proc.stream import PickStream
    from ext_proc.waiting import WaitingRoom
    from fleet.errors import UnreadableRequestError
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings
    from tests.ext_proc import test_duplex as gateway
    from tests.ext_proc.messages import body, entry, headers
    from tests.ext_proc.protocols.golden import REQUESTS
    from tests.ext_proc.protocols.reading import PATHS
    from tests.ext_proc.small import fresh, request
    from tests.ext_proc.test_steer import FLEET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ext_proc.http2.stream import Stream

SETTINGS = PickerSettings(max_parsed_bytes=64 << 10)
READING = reading(SETTINGS)
NAMES = sorted(PATHS)
ENCODINGS = ("", "", "gzip", "deflate")
RULES = Rules(Pools(FLEET), body_max=2048, test_headers=True)
ADDRESSES = tuple(sorted(FLEET.endpoints))
LARGEST = 1 << 10
"""Bytes of a message that a connection takes: small, so that larger ones are met."""


def steerer() -> Steerer:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    room = WaitingRoom(picker, longest=0, places=1)
    return Steerer(SETTINGS, FLEET, PrefixHasher(b"k", SETTINGS.block_bytes), picker, room)


DECIDER = steerer()


def fuzz(data: bytes) -> None:
    """One input: a choice, two bytes of header, the rest a body."""
    choice, hint, rest = (data[0] % (len(NAMES) + len(OTHERS)) if data else 0), data[1:3], data[3:]
    if choice < len(NAMES):
        parse(NAMES[choice], hint, rest)
    else:
        OTHERS[choice - len(NAMES)](hint, rest)


def exchange(hint: bytes, rest: bytes) -> None:
    """A body to decide from."""
    stream = PickStream(DECIDER, 1.0)
    path = PATHS[NAMES[sum(hint) % len(NAMES)]]
    stream.receive(headers(path=path), 1.0)
    stream.receive(body(rest), 1.0)
    assert stream.done
    forget(stream)


def message(hint: bytes, rest: bytes) -> None:
    """Any message at all."""
    stream = PickStream(DECIDER, 1.0)
    stream.receive(hint + rest, 1.0)
    forget(stream)


def forget(stream: PickStream) -> None:
    if stream.decision is not None:
        DECIDER._picker.cancel(stream.decision.id, 1.0)


def duplex(_: bytes, rest: bytes) -> None:
    """A gateway's messages, whatever they are."""
    stream = DuplexStream(DECIDER, DECIDER._picker, RULES)
    for now, piece in enumerate(pieces(rest)):
        stream.receive(piece, float(now))
    stream.end(100.0)
    assert DECIDER._picker.in_flight == 0


def answered(hint: bytes, rest: bytes) -> None:
    """A gateway's request and the answer to it, in order."""
    asked, _, answer = rest.partition(b"\0")
    status = f"{sum(hint) % 600}"
    stream = DuplexStream(DECIDER, DECIDER._picker, RULES)
    stream.receive(gateway.request_headers(subset=[ADDRESSES[0]]), 1.0)
    stream.receive(gateway.body("request", asked, end=True), 1.0)
    stream.receive(gateway.response_headers(status, ADDRESSES[0]), 2.0)
    stream.receive(gateway.body("response", answer[:16]), 3.0)
    stream.receive(gateway.body("response", answer[16:]), 4.0)
    stream.receive(gateway.trailers("response", grpc_status=status), 5.0)
    assert stream.done
    assert DECIDER._picker.in_flight == 0


def log(_: bytes, rest: bytes) -> None:
    """A message of Envoy's access log, about a request that is in flight."""
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    for found in completions.read(rest):
        decision = picker.pick(request(fresh(1), ADDRESSES), 1.0)
        assert decision is not None
        completions.apply(found, picker, 2.0)  # about no request of ours
        completions.apply(replace(found, pick_id=decision.id), picker, 2.0)


def connection(hint: bytes, rest: bytes) -> None:
    """An HTTP/2 client's bytes, with or without its greeting; what is heard is said back."""
    calls: list[Stream] = []
    server = Connection(lambda stream, _: calls.append(stream), LARGEST)
    if sum(hint) % 2 == 0:
        server.receive(PREFACE)
    for piece in pieces(rest):
        server.receive(piece)
        for stream in calls:
            while stream.messages and not stream.gone:
                server.write(stream, server.take(stream))


OTHERS: tuple[Callable[[bytes, bytes], None], ...] = (exchange, message, duplex, answered, log, connection)
"""What comes after the parsers among the choices."""


def pieces(data: bytes) -> Iterator[bytes]:
    """What of `data` arrives at once: two bytes say of how many bytes a piece is."""
    while data:
        length = 2 + int.from_bytes(data[:2], "big")
        yield data[2:length]
        data = data[length:]


def joined(*parts: bytes) -> bytes:
    """The parts as data of which `pieces` makes them again."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def parse(name: str, hint: bytes, rest: bytes) -> None:
    found = protocols.find("POST", PATHS[name])
    assert found is not None
    sent = {"content-encoding": ENCODINGS[hint[0] % len(ENCODINGS)] if hint else ""}
    if len(hint) > 1 and hint[1] % 2:
        sent["inference-header-content-length"] = str(hint[1])
    try:
        found.parse(protocols.Call(PATHS[name], sent, rest, READING))
    except UnreadableRequestError as error:
        assert error.reason in protocols.REASONS - {UNFORESEEN}, error.reason  # noqa: PT017 no test of pytest's


def seeds(folder: Path) -> None:
    """A valid body of each kind, to begin from."""
    for n, (protocol, sent, _) in enumerate(REQUESTS.values()):
        data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        (folder / str(n)).write_bytes(bytes([NAMES.index(protocol), 0, 0]) + data)
    for fuzzed, data in examples().items():
        choice = len(NAMES) + OTHERS.index(fuzzed)
        (folder / fuzzed.__name__).write_bytes(bytes([choice, 0, 200]) + data)


def examples() -> dict[Callable[[bytes, bytes], None], bytes]:
    """A valid input of each other kind."""
    chat = b'{"messages": [{"role": "user", "content": "hi"}]}'
    block = encoded(((b":method", b"POST"), (b":path", b"/S/M"), (b"content-type", b"application/grpc")))
    logged = als_pb2.StreamAccessLogsMessage()
    logged.http_logs.log_entry.append(entry())
    return {
        duplex: joined(
            gateway.request_headers(subset=[ADDRESSES[0]]),
            gateway.body("request", chat, end=True),
            gateway.response_headers("200", ADDRESSES[0]),
            gateway.body("response", b'{"usage": {"completion_tokens": 3}}'),
            gateway.trailers("response", grpc_status="0"),
        ),
        answered: chat + b'\0{"usage": {"completion_tokens": 3}}',
        log: logged.SerializeToString(),
        connection: joined(
            frame(Kind.HEADERS, Flag.END_HEADERS, 1, block),
            frame(Kind.DATA, Flag.END_STREAM, 1, b"\0\0\0\0\4text"),
        ),
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if not argument.startswith("-") and Path(argument).is_dir():
            seeds(Path(argument))
            break
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
