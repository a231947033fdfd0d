"""Ports of this machine: choosing free ones, and holding one."""

from __future__ import annotations

import contextlib
import os
import random
import socket

from fleet import address as addresses
from fleet.errors import ConfigError, StartError

LOOPBACK = "127.0.0.1"

_CHOICE = range(20_000, 30_000)
"""Below Linux's ephemeral range (32768 and up): an outgoing connection can never sit on the port of an
endpoint that is being restarted, nor can a connection to a dead one reach itself."""

_WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - listening there is the user's choice


def free_ports(count: int, taken: frozenset[int] = frozenset()) -> list[int]:
    """`count` distinct loopback ports that nothing listens on and that are not in `taken`."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(_CHOICE, len(_CHOICE)):
            if len(found) == count:
                return found
            if port in taken:
                continue
            with contextlib.suppress(OSError):
                held.enter_context(_listen(LOOPBACK, port))
                found.append(port)
    raise StartError(
        f"fewer than {count} free ports from {_CHOICE.start} to {_CHOICE.stop - 1} on {LOOPBACK}"
    )


def hold(address: str, *, source: str, field: str, advice: str) -> socket.socket:
    """Keep `address` until the socket is closed: then only who asks for SO_REUSEPORT, as Envoy does, gets it.

    Raises ConfigError, naming who asks for `address` and what to do, unless it can be listened on.
    """
    try:
        return _hold(*addresses.split(address))
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
        raise ConfigError(source, field, address, f"cannot listen there ({reason}); {advice}") from error


def dialable(address: str) -> str:
    """Where to dial a server that listens on `host:port`; a wildcard is reached over loopback."""
    host, port = addresses.split(address)
    return addresses.join(_WILDCARDS.get(host, host), port)


def _hold(host: str, port: int) -> socket.socket:
    """A bound socket that never listens, so that no connection is ever given to it."""
    # Only one can listen, but many can be bound while they allow quick reuse (SO_REUSEADDR, without which a
    # port rests for a minute after its last connection). So a listener shields the change of hands.
    with _listen(host, port) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held = socket.socket(listener.family)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(listener.getsockname())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            held.close()
            raise
    return held


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
