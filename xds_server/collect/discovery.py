"""Which endpoints there are: those that the settings name. The only place addresses come from."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from fleet.errors import ConfigError
from fleet.settings import split_host_port

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
    try:
        ipaddress.ip_address(split_host_port(address)[0])
    except ValueError as error:
        raise ConfigError(source, field, address, _EXPECTED) from error
