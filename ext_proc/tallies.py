"""What the picker counts while it decides; whoever shows metrics reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tallies:
    """Counts since the start. Their keys are words of bounded sets: protocols, reasons, outcomes."""

    by_protocol: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by protocol and outcome, where every reason not to be readable is `unreadable`."""

    unreadable: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Those that could not be read, by protocol and reason."""

    not_retriable: int = 0
    """Requests whose body is longer than what Envoy keeps for a retry."""
