"""What a picker remembers of caches and sessions, in the form in which it is passed on to one that starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ext_proc.session import SessionTable
    from fleet.index import PrefixIndex


class Memory:
    """Over one picker's index and sessions; `addresses` are the endpoints that it knows."""

    def __init__(self, addresses: Collection[str], index: PrefixIndex, sessions: SessionTable) -> None:
        self._addresses = addresses
        self._index = index
        self._sessions = sessions

    def capacity(self, address: str) -> int:
        """Blocks that a known endpoint is believed to have room for."""
        return self._index.capacity(address)

    def dump_blocks(self, address: str) -> bytes:
        """What a known endpoint is believed to hold, for `load_blocks`."""
        return self._index.dump(address)

    def load_blocks(self, dumps: Mapping[str, bytes], capacities: Mapping[str, int]) -> None:
        """Believe what another picker believed of endpoints that are known here."""
        for address in dumps:
            self._index.resize(address, capacities[address])
        self._index.load(dumps)

    def dump_sessions(self) -> list[tuple[str, tuple[str, float]]]:
        """Every session with its endpoint and when it was last heard of."""
        return self._sessions.dump()

    def load_sessions(self, sessions: Iterable[tuple[str, str, float]], ahead: float) -> None:
        """Remember sessions, longest idle first; their times are on a clock so many seconds `ahead`."""
        for session, address, at in sessions:
            if address in self._addresses:
                self._sessions.remember(session, address, at - ahead)
