"""What is measured: prompt sizes, fleet sizes, modes and transports, and which of them by default."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT_BYTES = (4096, 32_768, 225_280, 1_048_576)
ENDPOINTS = (10, 100, 1000)
LARGEST_PROMPT = 8 << 20
LARGEST_FLEET = 10_000

MODES = ("buffered", "session", "duplex")
"""`buffered`: Envoy sends the headers, then the body (BUFFERED_PARTIAL). `session`: a request whose session
is known is decided in the header phase, and its body is not sent. `duplex`: Envoy asks as a gateway asks its
endpoint picker, with everything of request and answer sent and sent back (FULL_DUPLEX_STREAMED)."""

TRANSPORTS = ("grpc", "http2")
"""What carries the exchange in the picker's process."""

_DEFAULT = ((4096, 10), (4096, 100), (4096, 1000), (225_280, 100))


@dataclass(frozen=True, slots=True)
class Site:
    """What one mesh is brought up for."""

    endpoints: int
    mode: str
    transport: str


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the result."""

    prompt_bytes: int
    site: Site


def cases(
    prompt_bytes: Sequence[int] | None,
    endpoints: Sequence[int] | None,
    modes: Sequence[str] | None,
    transports: Sequence[str] | None,
    *,
    every: bool,
) -> tuple[Case, ...]:
    """The cases chosen, those of one mesh next to each other. What is None is up to us; `every`: take all."""
    if every:
        sizes = tuple(product(prompt_bytes or PROMPT_BYTES, endpoints or ENDPOINTS))
    elif prompt_bytes is None and endpoints is None:
        sizes = _DEFAULT
    else:
        sizes = tuple(product(prompt_bytes or (4096,), endpoints or (100,)))
    sites = product(
        dict.fromkeys(count for _, count in sizes),
        modes or (MODES if every else MODES[:1]),
        transports or (TRANSPORTS if every else TRANSPORTS[:1]),
    )
    return tuple(
        Case(size, Site(count, mode, transport))
        for count, mode, transport in sites
        for size, its_count in sizes
        if its_count == count
    )
