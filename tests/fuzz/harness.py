"""Coverage-guided fuzzing of all that reads strangers' bytes: `python tests/fuzz/harness.py -runs=100000`.

Takes libFuzzer's options. The first byte of an input chooses what is fuzzed: a protocol's parser, with or
without compression, or a whole ext_proc exchange. Anything raised but UnreadableRequestError is a finding,
and so is the reason of last resort.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["ext_proc.protocols", "ext_proc.session", "ext_proc.stream"]):
    from ext_proc import protocols
    from ext_proc.picker import Picker
    from ext_proc.protocols.call import UNFORESEEN
    from ext_proc.reader import reading
    from ext_proc.steer import Steerer
    from ext_proc.stream import PickStream
    from ext_proc.waiting import WaitingRoom
    from fleet.errors import UnreadableRequestError
    from fleet.prefix import PrefixHasher
    from fleet.settings import PickerSettings
    from tests.ext_proc.messages import body, headers
    from tests.ext_proc.protocols.golden import REQUESTS
    from tests.ext_proc.protocols.reading import PATHS
    from tests.ext_proc.test_steer import FLEET

SETTINGS = PickerSettings(max_parsed_bytes=64 << 10)
READING = reading(SETTINGS)
NAMES = sorted(PATHS)
ENCODINGS = ("", "", "gzip", "deflate")
EXCHANGE = len(NAMES)
"""The choice that is no parser but a whole exchange."""


def steerer() -> Steerer:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    room = WaitingRoom(picker, longest=0, places=1)
    return Steerer(SETTINGS, FLEET, PrefixHasher(b"k", SETTINGS.block_bytes), picker, room)


DECIDER = steerer()


def fuzz(data: bytes) -> None:
    """One input: a choice, two bytes of header, the rest a body."""
    choice, hint, rest = (data[0] % (EXCHANGE + 2) if data else 0), data[1:3], data[3:]
    if choice > EXCHANGE:
        PickStream(DECIDER, 1.0).receive(data[1:], 1.0)
    elif choice == EXCHANGE:
        stream = PickStream(DECIDER, 1.0)
        path = PATHS[NAMES[sum(hint) % len(NAMES)]]
        stream.receive(headers(path=path), 1.0)
        stream.receive(body(rest), 1.0)
        assert stream.done
        if stream.decision is not None:
            DECIDER._picker.cancel(stream.decision.id, 1.0)
    else:
        parse(NAMES[choice], hint, rest)


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


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if not argument.startswith("-") and Path(argument).is_dir():
            seeds(Path(argument))
            break
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
