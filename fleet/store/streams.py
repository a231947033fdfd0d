"""What replicas share through the store besides records: streams of events, who is there, and copies.

All are kept per model. Every call raises StoreError where the store did not answer or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

START = "0-0"
"""Before every entry of a stream."""

STREAM_ENTRIES_MAX = 100_000
"""Entries that a stream keeps, about: a minute and a half at 1,000 placements a second, each published alone,
which is three times the age of a copy; some 50 MB with prompts of 4 KB."""

MEMBER_SECONDS = 5.0
"""Who did not say for so long that it is there, is not: five times the pause between two words of it."""


class Entry(NamedTuple):
    """One entry of a stream."""

    id: str
    sender: str
    data: bytes


class Ends(NamedTuple):
    """A stream's first entry and the last that it ever had; `START` where there is none."""

    first: str
    last: str
    length: int


class Streams(Protocol):
    """Event streams, replicas and copies, by model."""

    async def append(self, model: str, sender: str, data: bytes) -> str:
        """Add an entry; its id. The oldest are dropped beyond about `STREAM_ENTRIES_MAX`."""

    async def read(self, model: str, after: str, wait: float, most: int = 1000) -> list[Entry]:
        """Entries younger than the one of id `after`, oldest first; waits `wait` seconds for the first."""

    async def ends(self, model: str) -> Ends:
        """Where the stream begins and ends."""

    async def server_time(self) -> float:
        """The store's own clock: Unix seconds."""

    async def attend(self, model: str, name: str, word: bytes) -> dict[str, bytes]:
        """Say that replica `name` is there, and read what all have said, its own included."""

    async def leave(self, model: str, names: list[str]) -> None:
        """These replicas are not there any more."""

    async def lease(self, model: str, what: str, owner: str, seconds: float) -> bool:
        """Whether `owner` now holds the lease of that name, for so many seconds; it renews its own."""

    async def save(self, model: str, name: str, chunk: str, data: bytes, seconds: float) -> None:
        """Keep one chunk of the copy `name` for so many seconds."""

    async def load(self, model: str, name: str, chunks: list[str]) -> list[bytes | None]:
        """Chunks of the copy `name`, None for each that is not there."""

    async def close(self) -> None:
        """Let go of connections; further calls are errors."""


def order_of(id_: str) -> tuple[int, int]:
    """Ids in the order of their entries. An id that is none comes first."""
    left, _, right = id_.partition("-")
    try:
        return int(left), int(right or 0)
    except ValueError:
        return 0, 0


def without(name: str, said: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the others said."""
    return {other: word for other, word in said.items() if other != name}
