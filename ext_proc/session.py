"""Which conversation a request belongs to: headers, then a cookie, then the body. And where it lives."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LENGTH_MAX = 256
"""Longer ids are cut: they come from clients, and every one is remembered."""

NUMBER_MAX = 1 << 64
"""Sequence ids of Triton's are below; a larger number is none."""


def key(tenant: str, name: str) -> str:
    """What a session is remembered by: its name within its tenant, who is '' where nobody says; '' for none.

    No tenant's name holds a line break, so no session's name can pass for another tenant's.
    """
    return f"{tenant}\n{name}" if name else ""


def from_headers(headers: Mapping[str, str], names: Sequence[str], cookie: str) -> str:
    """The session that the request's headers name, or ''. Header names are lower case."""
    for name in names:
        if value := headers.get(name):
            return value[:LENGTH_MAX]
    return _from_cookies(headers.get("cookie", ""), cookie)


def from_body(data: Mapping[str, object], keys: Sequence[Sequence[str]]) -> str:
    """The session that a body names under the first of `keys` that it has, or ''. A key is a path."""
    for path in keys:
        value: object = data
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None and (found := _identifier(value)):
            return found
    return ""


def _identifier(value: object) -> str:
    if isinstance(value, dict):  # the Responses API also takes `conversation: {id: ...}`
        value = value.get("id")
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < NUMBER_MAX:
        return str(value)  # Triton's sequences; 0 is none
    return value[:LENGTH_MAX] if isinstance(value, str) else ""


def _from_cookies(cookies: str, wanted: str) -> str:
    for pair in cookies.split(";") if wanted else ():
        name, _, value = pair.strip().partition("=")
        if name == wanted:
            return value[:LENGTH_MAX]
    return ""


class SessionTable:
    """The endpoint that each session was last answered by; bounded, the longest idle forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._homes: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def home(self, session: str) -> str | None:
        """The session's endpoint, None where it has none."""
        found = self._homes.get(session)
        return None if found is None else found[0]

    def remember(self, session: str, address: str, now: float) -> None:
        """The session, if there is one, now lives at `address`."""
        if not session:
            return
        self._homes[session] = (address, now)
        self._homes.move_to_end(session)
        if len(self._homes) > self._size:
            self._homes.popitem(last=False)

    def dump(self) -> list[tuple[str, tuple[str, float]]]:
        """Every session with its endpoint and when it was last heard of, longest idle first."""
        return list(self._homes.items())

    def expire(self, before: float) -> None:
        """Forget sessions not heard of since `before`."""
        while self._homes and next(iter(self._homes.values()))[1] <= before:
            self._homes.popitem(last=False)
