"""The names that a benchmark's route answers to, and where its echo listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleet.settings import Settings

PICKED = "picked"
"""Steered, as in life."""

PLAIN = "plain"
"""The same route without the filter."""

ECHOED = "echoed"
"""The filter asks the echo."""


def as_gateway(settings: Settings) -> bool:
    """Whether Envoy asks as a gateway asks its endpoint picker; the picker then takes it for one, always."""
    return settings.endpoint_picker.mode == "always"


def echo_address(settings: Settings) -> str:
    """Where the echo listens: a socket beside the picker's."""
    return f"{settings.picker_address}.echo"
