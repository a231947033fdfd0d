"""What replicas of the picker tell each other, and what engines tell of their caches.

A replica that applies the events of another knows what that one knows, a little later. Times are seconds on
the receiving picker's clock: whoever carries an event between processes translates them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ext_proc.request import RoutingRequest


@dataclass(frozen=True, slots=True)
class Placed:
    """A request was placed on the first of `endpoints`, with what was predicted of it there."""

    id: str
    at: float
    request: RoutingRequest
    endpoints: tuple[str, ...]
    believed_tokens: float
    matched_tokens: float
    uncached_tokens: float
    work: float  # tokens, weighed by the cost model
    prefill: float  # seconds
    replica: str = ""  # who placed it
    again: bool = False  # told before, and now for those who missed it


@dataclass(frozen=True, slots=True)
class Began:
    """The first token of a request came at `at`."""

    id: str
    at: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Envoy turned to another endpoint with a request: the arguments of `Picker.running`."""

    id: str
    at: float
    endpoint: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """A request is over: the arguments of `Picker.finish`."""

    id: str
    at: float
    endpoint: str = ""
    failed: bool = False
    answered: bool = True
    decode_seconds: float | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody heard of a decision: the request will not come."""

    id: str
    at: float


@dataclass(frozen=True, slots=True)
class Waits:
    """A replica holds a request for an endpoint, and may name another later. For `WaitingRoom.hear`."""

    id: str
    replica: str  # who holds it
    turn: tuple[float, int]  # who has the lowest goes first, whoever holds it
    address: str  # where it would go now,
    reserved: float  # the seconds of prefill it would be there,
    prefill: float  # and where it is shortest


@dataclass(frozen=True, slots=True)
class Left:
    """A request is held no longer: it was placed, or its client left. For `WaitingRoom.hear`."""

    id: str


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """An engine computed prefix blocks, in our own hashes."""

    address: str
    blocks: Sequence[int]


@dataclass(frozen=True, slots=True)
class BlocksRemoved:
    """An engine dropped prefix blocks; all of them where `blocks` is None."""

    address: str
    blocks: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What `replica` has placed on one model, or holds for it, and is not over: anything else of its is."""

    replica: str
    ids: tuple[str, ...]
    model: str = ""  # does not travel: whoever hears it knows whose stream it read


@dataclass(frozen=True, slots=True)
class Asked:
    """`replica` missed news, and asks all others to say what is outstanding of theirs."""

    replica: str


HoldEvent = Waits | Left
RoutingEvent = Placed | Began | Moved | Ended | Cancelled | BlocksStored | BlocksRemoved | Standing
SharedEvent = RoutingEvent | HoldEvent | Asked
