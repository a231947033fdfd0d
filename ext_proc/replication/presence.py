"""Which replicas are there, and whether they hash prompts alike: only then do their blocks mean the same.

Each says every second that it is there, with a fingerprint of its key and block size. Two that differ must
not run together: the one that came later gives up.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from ext_proc.replication import events_pb2 as pb
from fleet.prefix import KEY_BYTES_MAX
from fleet.store.streams import MEMBER_SECONDS

LAYOUT = 1

FORGOTTEN_SECONDS = 60.0
"""Who has been silent for so long is swept out of the store."""


def fingerprint(key: bytes, block_bytes: int) -> bytes:
    """What shows that two replicas make the same hashes, and shows nothing of the key."""
    short = key if len(key) <= KEY_BYTES_MAX else hashlib.blake2b(key).digest()
    return hashlib.blake2b(b"kvpilot %d" % block_bytes, key=short, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Word:
    """What one replica says of itself. Seconds on the store's clock."""

    at: float
    since: float
    fingerprint: bytes

    def encode(self) -> bytes:
        """As it lies in the store."""
        record = pb.ReplicaRecord(version=LAYOUT, at=self.at, since=self.since, fingerprint=self.fingerprint)
        data: bytes = record.SerializeToString()
        return data


def decode(data: bytes) -> Word | None:
    """The word that `data` holds, None for other bytes or a newer layout."""
    try:
        record = pb.ReplicaRecord.FromString(data)
    except DecodeError:
        return None
    if not 1 <= record.version <= LAYOUT:
        return None
    return Word(record.at, record.since, record.fingerprint)


@dataclass(frozen=True, slots=True)
class Present:
    """Who else is there now, of those that hash alike, and which do not; and whom to sweep out."""

    others: tuple[str, ...]
    strangers: tuple[str, ...]  # with another key, that were there before us
    gone: tuple[str, ...]
    unlike: tuple[str, ...]  # with another key, whoever came first


def present(own: str, said: dict[str, bytes], now: float) -> Present:
    """Judge what all have said, at `now` on the store's clock. Own word included."""
    words = {name: word for name, data in said.items() if (word := decode(data)) is not None}
    mine = words[own]
    alive = {n: w for n, w in words.items() if n != own and abs(now - w.at) < MEMBER_SECONDS}
    alike = tuple(n for n, w in alive.items() if w.fingerprint == mine.fingerprint)
    unlike = {n: w for n, w in alive.items() if w.fingerprint != mine.fingerprint}
    before = tuple(n for n, w in unlike.items() if (w.since, n) < (mine.since, own))
    gone = tuple(n for n, w in words.items() if n != own and now - w.at > FORGOTTEN_SECONDS)
    return Present(alike, before, gone, tuple(unlike))
