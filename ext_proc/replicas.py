"""The other replicas of this picker: who they are, how late their news is, and whose each endpoint is.

Replicas that see the same fleet and do not yet see each other's placements all choose the same endpoint. So
each endpoint has an owner (rendezvous hashing over the replicas heard of lately, no agreement needed), and
to everybody else it looks as busy as its owner's unseen placements may have made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

SILENCE_SECONDS = 10.0
"""A replica not heard of for this long is gone, or has no traffic: either way it places nothing."""

LAG_SHARE = 0.05
"""What one event counts for in the lag believed: a memory of about 20."""

LAG_MAX_SECONDS = 1.0
"""What is heard of later was kept while the store was away: that is not how late news is."""


@dataclass(slots=True)
class Replica:
    """Another replica; seconds."""

    heard_at: float
    lag: float  # from a placement to its news, smoothed


class Replicas:
    """Everybody who places requests on the same endpoints. `name` is our own, unlike all others'."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._others: dict[str, Replica] = {}
        self._owned: dict[str, bool] = {}  # by address, until the set of replicas changes

    def heard(self, name: str, placed_at: float, now: float) -> None:
        """Another replica's placement of `placed_at` is known at `now`; an old one says nothing of either."""
        if placed_at <= now - SILENCE_SECONDS:
            return
        lag = min(max(0.0, now - placed_at), LAG_MAX_SECONDS)
        other = self._others.get(name)
        if other is None:
            self._others[name] = Replica(now, lag)
            self._owned.clear()
        else:
            other.heard_at = now
            other.lag += LAG_SHARE * (lag - other.lag)

    def expire(self, now: float) -> None:
        """Forget who has been silent."""
        silent = [n for n, other in self._others.items() if other.heard_at <= now - SILENCE_SECONDS]
        for name in silent:
            del self._others[name]
            self._owned.clear()

    @property
    def nobody_else(self) -> bool:
        """Whether there is no other, as far as is known."""
        return not self._others

    @property
    def count(self) -> int:
        """Replicas that are known to be there, this one included."""
        return len(self._others) + 1

    def present(self, name: str) -> bool:
        """Whether another replica of that name was heard of lately."""
        return name in self._others

    def owns(self, address: str) -> bool:
        """Whether the endpoint is ours; every endpoint is where nobody else was heard of."""
        if not self._others:
            return True
        owned = self._owned.get(address)
        if owned is None:
            mine = _rank(self.name, address)
            owned = all(_rank(name, address) < mine for name in self._others)
            self._owned[address] = owned
        return owned

    def unseen(self, arrivals: float) -> float:
        """Placements, of so many a second by all, that others have made and we have not heard of."""
        if not self._others:
            return 0.0
        lag = sum(other.lag for other in self._others.values()) / len(self._others)
        return arrivals * lag * len(self._others) / (len(self._others) + 1)


def _rank(name: str, address: str) -> int:
    return xxh3_64_intdigest(f"{name} {address}".encode())
