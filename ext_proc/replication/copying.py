"""What a new replica starts from: a copy of what another one knows, as chunks for the store.

The head names the place in the model's stream that the copy belongs to; what came later is read from there.
Blocks lie beside it, packed as 64-bit numbers in order of use, so that neither writing nor reading makes an
object of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from ext_proc.replication import events_pb2 as pb
from fleet.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT = 1

CHUNK_BYTES = 512 << 10
"""Of blocks: a millisecond or two to send, so that nothing else waits for long."""


SESSIONS_PER_CHUNK = 2000
"""Sessions: a few milliseconds to write."""

Session = tuple[str, str, float]
"""Its name, its endpoint, and when it was last heard of."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Of one model. Times are Unix seconds on the store's clock."""

    at: float
    fingerprint: bytes
    cursor: str
    capacities: dict[str, int] = field(default_factory=dict)  # blocks, by endpoint
    chunks: dict[str, int] = field(default_factory=dict)  # how many there are, by endpoint
    session_chunks: int = 0
    outstanding: tuple[bytes, ...] = ()  # event batches

    def encode(self) -> bytes:
        """The head, as it lies in the store."""
        record = pb.CopyRecord(version=LAYOUT, at=self.at, fingerprint=self.fingerprint, cursor=self.cursor)
        for address, capacity in self.capacities.items():
            record.endpoints.add(address=address, capacity=capacity, chunks=self.chunks.get(address, 0))
        record.session_chunks = self.session_chunks
        record.outstanding.extend(self.outstanding)
        data: bytes = record.SerializeToString()
        return data


def decode(data: bytes) -> Copy:
    """The copy whose head `data` is. Raises RecordError for other bytes or a newer layout."""
    try:
        record = pb.CopyRecord.FromString(data)
    except DecodeError as error:
        raise RecordError(f"copy of {len(data)} bytes is not a message") from error
    if not 1 <= record.version <= LAYOUT:
        raise RecordError(f"copy has layout {record.version}, this is {LAYOUT}")
    return Copy(
        record.at,
        record.fingerprint,
        record.cursor,
        {e.address: e.capacity for e in record.endpoints},
        {e.address: e.chunks for e in record.endpoints},
        record.session_chunks,
        tuple(record.outstanding),
    )


def encode_sessions(sessions: Sequence[Session]) -> bytes:
    """A chunk of sessions."""
    message = pb.SessionsCopy()
    for session, address, at in sessions:
        message.sessions.add(session=session, address=address, at=at)
    data: bytes = message.SerializeToString()
    return data


def decode_sessions(data: bytes) -> list[Session]:
    """A chunk of sessions; none where the bytes are something else."""
    try:
        message = pb.SessionsCopy.FromString(data)
    except DecodeError:
        return []
    return [(s.session, s.address, s.at) for s in message.sessions]


def split(data: bytes) -> list[bytes]:
    """Packed blocks as chunks."""
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def chunk_name(address: str, number: int) -> str:
    """Where a chunk of an endpoint's blocks lies."""
    return f"{address}/{number}"
