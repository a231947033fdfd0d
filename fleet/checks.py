"""What a setting may be: the text of addresses, names and headers, and what must differ from each other.

Each check of a text returns it in its one canonical form; every check raises a ValueError that says what
would be right.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from fleet import address as addresses
from fleet.gpu import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAME = "a name of at most 100 letters, digits and . _ : - that starts with a letter or digit"
GPU = f"one of {', '.join(sorted(CATALOGUE))}"

HEADER, CLAIM, CERTIFICATE = "header:", "claim:", "certificate"
"""Where the word of a caller may come from: how such sources begin, or are."""

_HOST_PORT = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")  # RFC 9110, 5.6.2
_BODY_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}(\.[A-Za-z0-9_-]{1,100}){0,3}")
_CLAIM_PATH = re.compile(r"[^.\s]{1,100}(?:\.[^.\s]{1,100}){0,9}")
_UNIX_PATH_MAX = 107  # bytes in Linux's sockaddr_un, less the final NUL


def host_port(value: str) -> str:
    """`host:port`, where the host is a name or an IP address, IPv6 in brackets."""
    return _host_port(value, "host:port")


def ip_port(value: str) -> str:
    """`ip:port`: Envoy resolves no names in endpoints and listeners, and one name costs all their update.

    Canonical, since the picker knows an endpoint again by how Envoy writes it.
    """
    checked = _host_port(value, "ip:port")
    if not addresses.is_ip(checked):
        raise ValueError("expected ip:port, as in 10.0.0.7:8000; names are not looked up here")
    return checked


def server_address(value: str) -> str:
    """`host:port` or `unix:/path`."""
    path = addresses.unix_path(value)
    if path is None:
        return _host_port(value, "host:port or unix:/path")
    if not path.startswith("/") or "\0" in path or len(path.encode()) > _UNIX_PATH_MAX:
        raise ValueError(f"expected unix:/path of at most {_UNIX_PATH_MAX} bytes, or host:port")
    return value


def gpu(value: str) -> str:
    """A GPU of the catalogue."""
    if value not in CATALOGUE:
        raise ValueError(f"expected {GPU}")
    return value


def is_name(value: object) -> bool:
    """Whether `value` can name a model, version or pool."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def name(value: str) -> str:
    """What names a model, version or pool, in addresses of clusters and keys of records."""
    if not is_name(value):
        raise ValueError(f"expected {NAME}")
    return value


def header_name(value: str) -> str:
    """A header's name in lower case, as Envoy hands headers on."""
    if _TOKEN.fullmatch(value) is None:
        raise ValueError("expected the name of an HTTP header, as in x-session-id")
    return value.lower()


def body_key(value: str) -> str:
    """Where a JSON body holds something: a name, or a few of them with dots between, outer ones first."""
    if _BODY_KEY.fullmatch(value) is None:
        raise ValueError("expected a key of a JSON body, as in session_id or metadata.session_id")
    return value


def header_name_or_none(value: str) -> str:
    """A header's name in lower case; empty for none."""
    return value and header_name(value)


def cookie_name(value: str) -> str:
    """A cookie's name; empty for none."""
    if value and _TOKEN.fullmatch(value) is None:
        raise ValueError("expected the name of a cookie, as in kvpilot_session, or '' for none")
    return value


def source(value: str) -> str:
    """Whose word counts: a header that the gateway sets, a claim by its path, or the client's certificate."""
    if value == CERTIFICATE:
        return value
    name = value.removeprefix(HEADER)
    if name != value and _TOKEN.fullmatch(name) is not None:
        return HEADER + name.lower()
    path = value.removeprefix(CLAIM)
    if path != value and _CLAIM_PATH.fullmatch(path) is not None:
        return value
    raise ValueError("expected header:NAME, claim:PATH (as in claim:payload.tenant) or certificate")


def zone(value: str) -> str:
    """A zone's name, as a node's topology label gives it; empty for none."""
    if value and not is_name(value):
        raise ValueError("expected the name of a zone, as in us-east-1a, or '' for none")
    return value


def http_url_or_none(value: str) -> str:
    """Where something is sent to over HTTP; empty for nowhere."""
    parts = urlsplit(value)
    if value and not (parts.scheme in ("http", "https") and parts.hostname and value.isprintable()):
        raise ValueError("expected a URL, as in http://127.0.0.1:4318/v1/traces, or '' for none")
    return value


def seconds_or_never(value: float) -> float:
    """A time of at least a millisecond, or 0 where there is no limit."""
    if 0 < value < 0.001:
        raise ValueError("expected 0 for never, or a number from 0.001 to 86400")
    return value


def mistake(field: str, value: object, expected: str) -> PydanticCustomError:
    """An error in `field`, a dotted path below the section that is checked; `expected` says what is right."""
    return PydanticCustomError(
        "mistake", "{expected}", {"field": field, "value": value, "expected": f"expected {expected}"}
    )


def distinct_names(within: str, names: Sequence[str]) -> None:
    """`within` is the path of the list that holds what is named, and there is at least one."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise mistake(f"{within}.{name}", None, f"each name once, found this one {times} times")


def distinct_addresses(places: Iterable[tuple[str, str]]) -> None:
    """`places` are fields, and the address that each holds."""
    first: dict[str, str] = {}
    for field, address in places:
        if first.setdefault(address, field) != field:
            raise mistake(field, address, f"an address that {first[address]} does not have")


def _host_port(value: str, form: str) -> str:
    wrong = ValueError(f"expected {form}, as in 10.0.0.7:8000, with a port from 1 to 65535")
    if _HOST_PORT.fullmatch(value) is None:
        raise wrong
    host, port = addresses.split(value)
    if port > 65535:
        raise wrong
    try:
        return addresses.join(str(ipaddress.ip_address(host)), port)
    except ValueError:
        if ":" in host:  # brackets around what is no IPv6 address
            raise wrong from None
        return value
