"""One ADS stream, state of the world, without I/O: what a client asked for and what it is owed.

`receive` takes a request in, `due` says what to send now and remembers it as sent. The adapter calls `due`
after every request and whenever there is a newer snapshot; nothing is queued, a slow client simply gets the
newest state next. See https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.errors import KvpilotError
from xds_server.resources.endpoints import empty_load_assignment
from xds_server.snapshot import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE

if TYPE_CHECKING:
    from xds_server.snapshot import Snapshot

WILDCARD = "*"

_FULL_STATE = frozenset({CLUSTER, LISTENER})
"""Types whose responses always hold everything: what is absent is deleted. Others may be sent in parts."""

_RESENT_AFTER = {CLUSTER: ENDPOINT, LISTENER: ROUTE}
"""A changed cluster warms until its endpoints come again, a changed listener until its routes do. Waiting for
the ACK first would wait for ever: Envoy gives it only then."""


class ProtocolError(KvpilotError):
    """A request that no xDS client may send; the stream ends with INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Request:
    """A DiscoveryRequest. `error` is the client's reason to refuse the response named by `nonce`."""

    type_url: str
    nonce: str = ""
    names: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A DiscoveryResponse; `bodies` are serialized resources by name."""

    type_url: str
    version: str
    nonce: str
    bodies: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Nack:
    """A client refused `version` and goes on with the last one that it accepted."""

    type_url: str
    version: str
    error: str


@dataclass(slots=True)
class _Watch:
    """One type on one stream."""

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    unanswered: bool = True  # the names changed since the last response
    version: str = ""  # of the last response
    nonce: str = ""
    sent: dict[str, bytes] = field(default_factory=dict)  # what the client holds or is about to
    refused_version: str = ""
    refused: frozenset[str] = frozenset()


class Subscription:
    """What one client watches. Unknown types are let pass unanswered; a watch is never dropped."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._responses = 0

    def receive(self, request: Request) -> Nack | None:
        """Take in a request; a stale one (its nonce is not the last) changes nothing.

        Returns the refusal that it brings, if any. Raises ProtocolError without a type URL.
        """
        if not request.type_url:
            raise ProtocolError("a request on an aggregated stream needs a type_url")
        if request.type_url not in PUSH_ORDER:
            return None
        first = request.type_url not in self._watches
        watch = self._watches.setdefault(request.type_url, _Watch())
        if request.nonce and watch.nonce and request.nonce != watch.nonce:
            return None
        _subscribe(watch, request, first=first)
        return _refuse(watch, request) if request.error and request.nonce else None

    def due(self, snapshot: Snapshot) -> list[Response]:
        """What to send now, in this order; each counts as sent from here on."""
        responses: list[Response] = []
        for type_url in PUSH_ORDER:
            watch = self._watches.get(type_url)
            if watch is None:
                continue
            bodies = _owed(watch, type_url, snapshot)
            if bodies is None:
                continue
            responses.append(self._respond(watch, type_url, snapshot.versions[type_url], bodies))
            dependent = self._watches.get(_RESENT_AFTER.get(type_url, ""))
            if dependent is not None:
                # What it refused of them, it refused for what they belonged to before.
                dependent.sent.clear()
                dependent.refused_version, dependent.refused = "", frozenset()
        return responses

    def _respond(self, watch: _Watch, type_url: str, version: str, bodies: dict[str, bytes]) -> Response:
        self._responses += 1
        watch.nonce = str(self._responses)
        watch.version = version
        watch.unanswered = False
        watch.sent = bodies if type_url in _FULL_STATE else {**watch.sent, **bodies}
        if version != watch.refused_version:
            watch.refused_version, watch.refused = "", frozenset()
        return Response(type_url, version, watch.nonce, bodies)


def _subscribe(watch: _Watch, request: Request, *, first: bool) -> None:
    """No names means all of a full-state type, until names were once given; `*` always does."""
    named = frozenset(request.names) - {WILDCARD}
    unnamed = not request.names and request.type_url in _FULL_STATE and (first or watch.wildcard)
    wildcard = WILDCARD in request.names or unnamed
    if (wildcard, named) != (watch.wildcard, watch.names):
        watch.wildcard, watch.names, watch.unanswered = wildcard, named, True
        if request.type_url not in _FULL_STATE:
            # A name that was dropped and comes back is new to the client: it is owed again.
            watch.sent = {name: body for name, body in watch.sent.items() if name in named}


def _refuse(watch: _Watch, request: Request) -> Nack:
    """The client holds none of what was refused; the same version is not sent again to those names."""
    watch.refused_version = watch.version
    watch.refused = frozenset(watch.sent)
    watch.sent = {}
    return Nack(request.type_url, watch.version, request.error)


def _owed(watch: _Watch, type_url: str, snapshot: Snapshot) -> dict[str, bytes] | None:
    """The resources of the next response, or None where there is nothing to tell."""
    held = snapshot.bodies[type_url]
    names = held.keys() if watch.wildcard else watch.names
    wanted = {name: body for name in sorted(names) if (body := _body(type_url, name, held)) is not None}
    if snapshot.versions[type_url] == watch.refused_version:
        if not wanted.keys() - watch.refused:
            return None
        if type_url not in _FULL_STATE:
            wanted = {name: body for name, body in wanted.items() if name not in watch.refused}
    if type_url in _FULL_STATE:
        return wanted if watch.unanswered or wanted != watch.sent else None
    changed = {name: body for name, body in wanted.items() if watch.sent.get(name) != body}
    return changed or None


def _body(type_url: str, name: str, held: dict[str, bytes]) -> bytes | None:
    body = held.get(name)
    return empty_load_assignment(name) if body is None and type_url == ENDPOINT else body
