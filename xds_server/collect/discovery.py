"""Which endpoints there are: those that the settings name. The only place addresses come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet import address as addresses
from fleet.errors import ConfigError

if TYPE_CHECKING:
    from fleet.model import Fleet
    from fleet.settings import Settings

_EXPECTED = "expected an IP address and port: Envoy resolves no names here"


def discover(settings: Settings, source: str) -> Fleet:
    """The fleet that `settings` describe; `source` names the file in errors.

    Raises ConfigError for an address that Envoy would refuse, which would cost every endpoint its update.
    """
    _require_ip(settings.listen, source, "listen")
    fleet = settings.fleet()
    for address, endpoint in fleet.endpoints.items():
        _require_ip(address, source, f"endpoints of {endpoint.cluster}, pool {endpoint.pool}")
    return fleet


def _require_ip(address: str, source: str, field: str) -> None:
    if not addresses.is_ip(address):
        raise ConfigError(source, field, address, _EXPECTED)
