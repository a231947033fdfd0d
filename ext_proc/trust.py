"""Who asks, how urgent it is, and how soon it should be answered: as far as somebody trusted says so.

Sources are configured (`trust` in the settings): a header that the gateway sets and takes from clients, a
claim that Envoy's JWT filter has verified, the URI in the client's certificate. What comes from anywhere else
has no effect, and what makes no sense is ignored. No I/O: what Envoy sent in, a `Caller` out.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.checks import CERTIFICATE, CLAIM, HEADER
from fleet.settings.admission import PRIORITY_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleet.settings import TrustSettings

NAME_MAX = 256
"""A tenant's name that is longer becomes a digest: cut, it might be another's."""

OBJECTIVE_MAX_MS = 3_600_000
"""An hour: nobody waits longer for a first token."""

LEVELS = {"lowest": -100, "batch": -10, "low": -10, "normal": 0, "high": 10, "critical": 100}
"""Priorities by name, besides whole numbers."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What Envoy itself says of a caller: not headers, which clients write."""

    certificate: str = ""  # the first URI SAN of the client's certificate
    claims: Mapping[str, object] = field(default_factory=dict)  # of the trusted namespace, nested


NO_EVIDENCE = Evidence()


class RequestHeaders(dict[str, str]):
    """A request's headers by lower-case name, and what Envoy itself says of who sent them."""

    evidence = NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request is for. Empty where no trusted source said."""

    tenant: str = ""
    priority: int | None = None  # higher is more important
    ttft_objective: float | None = None  # seconds


NOBODY = Caller()


class Trust:
    """The configured sources."""

    def __init__(self, settings: TrustSettings) -> None:
        self._settings = settings
        self._trusts_nobody = not settings.sources

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Whom the trusted sources name. Header names are lower case. Never raises."""
        if self._trusts_nobody:
            return NOBODY
        evidence = headers.evidence if isinstance(headers, RequestHeaders) else NO_EVIDENCE
        settings = self._settings
        return Caller(
            _tenant(_first(settings.tenant, headers, evidence)),
            _priority(_first(settings.priority, headers, evidence)),
            _objective(_first(settings.ttft_objective_ms, headers, evidence)),
        )


def _first(sources: Sequence[str], headers: Mapping[str, str], evidence: Evidence) -> str:
    for source in sources:
        if said := _said(source, headers, evidence):
            return said
    return ""


def _said(source: str, headers: Mapping[str, str], evidence: Evidence) -> str:
    if source == CERTIFICATE:
        return evidence.certificate.strip()
    if source.startswith(HEADER):
        return headers.get(source[len(HEADER) :], "").strip()
    found: object = evidence.claims
    for step in source[len(CLAIM) :].split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return ""
    if isinstance(found, float) and found.is_integer():
        return str(int(found))  # JSON in metadata knows no other numbers
    return str(found).strip() if isinstance(found, str | int | float) else ""


def _tenant(said: str) -> str:
    if len(said) <= NAME_MAX:
        return said
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _priority(said: str) -> int | None:
    if said.lower() in LEVELS:
        return LEVELS[said.lower()]
    digits = said.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(PRIORITY_MAX))):
        return None
    return max(-PRIORITY_MAX, min(PRIORITY_MAX, int(said)))


def _objective(said: str) -> float | None:
    try:
        milliseconds = float(said)
    except ValueError:
        return None
    if not (math.isfinite(milliseconds) and 0 < milliseconds <= OBJECTIVE_MAX_MS):
        return None
    return milliseconds / 1e3
