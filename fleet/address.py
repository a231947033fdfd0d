"""Addresses as settings and Envoy write them: `host:port` (IPv6 in brackets) or `unix:/path`."""

from __future__ import annotations

import ipaddress

_UNIX = "unix:"


def split(address: str) -> tuple[str, int]:
    """Host and port of a valid `host:port`; IPv6 without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    """`host:port`; IPv6 gets its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(address: str) -> bool:
    """Whether the host of a valid `host:port` is an IP address and no name."""
    try:
        ipaddress.ip_address(split(address)[0])
    except ValueError:
        return False
    return True


def of_worker(address: str, number: int) -> str:
    """Where worker `number` of a server at `address` is: so many ports on, or `.number` after the path."""
    if unix_path(address) is not None:
        return f"{address}.{number}" if number else address
    host, port = split(address)
    return join(host, port + number)


def unix_path(address: str) -> str | None:
    """The path of a `unix:/path` address; None for any other."""
    return address.removeprefix(_UNIX) if address.startswith(_UNIX) else None
