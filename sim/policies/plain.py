"""The routers everybody has: they know requests and sessions, never prompts or hardware.

The two hashes use one ring of virtual nodes. A session is hashed by its name. A request without one goes to a
random endpoint in `session_hash`, as a mesh does where the header is missing, and by its prompt's first block
in `bounded_hash`, as consistent hashing with bounded loads is published for LLMs.
"""

from __future__ import annotations

from bisect import bisect
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from sim.policies.router import Pick, Router

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fleet.model import Endpoint
    from sim.policy import Job

_VIRTUAL_NODES = 256  # per endpoint; evens their shares of the ring to about 1/sqrt(256) = 6 %
_LOAD_BOUND = 1.25  # c: no endpoint may hold more than c times the mean of requests in flight


class RoundRobin(Router):
    """Each endpoint in turn."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """Begin before the first endpoint."""
        self._turn = -1

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002 (all requests are alike to it)
        """The next endpoint."""
        self._turn = (self._turn + 1) % len(self.in_flight)
        return Pick(self._turn)


class RandomChoice(Router):
    """Any endpoint."""

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """Uniformly."""
        return Pick(self.rng.randrange(len(self.in_flight)))


class LeastRequests(Router):
    """The endpoint with the fewest requests in flight, ties at random."""

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """Fewest in flight."""
        return Pick(self.lowest(self.in_flight))


class PowerOfTwo(Router):
    """The less loaded of two endpoints drawn at random."""

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """Fewer in flight of the two."""
        count = len(self.in_flight)
        return Pick(self.lowest(self.in_flight, self.rng.sample(range(count), min(2, count))))


class Ring:
    """A consistent-hash ring of endpoint addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        points = sorted(
            (xxh3_64_intdigest(f"{address}#{node}".encode()), index)
            for index, address in enumerate(addresses)
            for node in range(_VIRTUAL_NODES)
        )
        self._hashes = [point for point, _ in points]
        self._owners = [owner for _, owner in points]

    def walk(self, key: str) -> Iterator[int]:
        """Endpoints' indices in ring order from `key`'s place, each as often as it has virtual nodes."""
        first = bisect(self._hashes, xxh3_64_intdigest(key.encode()))
        yield from islice(self._owners, first, None)
        yield from islice(self._owners, first)


class SessionHash(Router):
    """The ring's owner of the session, whatever its load."""

    def prepare(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int]) -> None:  # noqa: ARG002
        """Lay the ring."""
        self.ring = Ring([endpoint.address for endpoint in endpoints])

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The session's home."""
        if not job.session:
            return Pick(self.rng.randrange(len(self.in_flight)))
        return Pick(next(self.ring.walk(job.session)))


class BoundedHash(SessionHash):
    """Consistent hashing with bounded load: a full endpoint passes the request on along the ring.

    Full is 1.25 times the mean, this request counted, rounded up. Without a key any that is not full will do.
    """

    def choose(self, job: Job, now: float) -> Pick:  # noqa: ARG002
        """The first endpoint with room from the key on."""
        bound = ceil(_LOAD_BOUND * (sum(self.in_flight) + 1) / len(self.in_flight))
        key = job.session or (str(job.blocks[0]) if job.blocks else "")
        if key:
            return Pick(next(index for index in self.ring.walk(key) if self.in_flight[index] < bound))
        return Pick(self.rng.choice([i for i, load in enumerate(self.in_flight) if load < bound]))
