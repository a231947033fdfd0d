from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic_core import PydanticCustomError

from fleet import checks

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("check", "text", "canonical"),
    [
        (checks.ip_port, "10.0.0.7:8000", "10.0.0.7:8000"),
        (checks.ip_port, "[FD00:0::1]:80", "[fd00::1]:80"),
        (checks.host_port, "pod-1.svc:65535", "pod-1.svc:65535"),
        (checks.host_port, "[0:0::1]:1", "[::1]:1"),
        (checks.server_address, "picker.svc:18001", "picker.svc:18001"),
        (checks.server_address, "unix:/run/x.sock", "unix:/run/x.sock"),
        (checks.name, "Qwen3.5-32b:fp8", "Qwen3.5-32b:fp8"),
        (checks.gpu, "L4-24GB", "L4-24GB"),
        (checks.header_name, "X-Session-ID", "x-session-id"),
        (checks.cookie_name, "Chat", "Chat"),
        (checks.cookie_name, "", ""),
        (checks.header_name_or_none, "X-Class", "x-class"),
        (checks.header_name_or_none, "", ""),
        (checks.zone, "us-east-1a", "us-east-1a"),
        (checks.zone, "", ""),
        (checks.source, "header:X-Tenant", "header:x-tenant"),
        (checks.source, "claim:payload.realm_access.Tenant", "claim:payload.realm_access.Tenant"),
        (checks.source, "certificate", "certificate"),
    ],
)
def test_gives_what_is_right_in_its_canonical_form(
    check: Callable[[str], str], text: str, canonical: str
) -> None:
    assert check(text) == canonical


@pytest.mark.parametrize(
    ("check", "texts", "expected"),
    [
        (
            checks.ip_port,
            ["pod:80", "localhost:80", "999.0.0.1:80", "010.0.0.1:80"],
            "names are not looked up",
        ),
        (checks.ip_port, ["10.0.0.1", "10.0.0.1:", ":80", "::1:80", "[::1]", "[:]:80"], "expected ip:port"),
        (checks.host_port, ["a:0", "a:65536", "a:080", "a:٣", "a b:1", "a:1\n", "http://a:1"], "1 to 65535"),
        (
            checks.server_address,
            ["unix:x", "unix:", "unix:/" + "x" * 107, "unix:/a\0"],
            "unix:/path of at most 107",
        ),
        (checks.server_address, ["", "host"], "host:port or unix:/path"),
        (checks.name, ["", ".a", "a/b", "a\n", "a" * 101], "that starts with a letter or digit"),
        (checks.gpu, ["H100"], "expected one of A100-40GB, "),
        (checks.header_name, ["", "x y", ":path", "x\n", "x" * 101, "ü"], "the name of an HTTP header"),
        (checks.header_name_or_none, ["x y", ":path"], "the name of an HTTP header"),
        (checks.cookie_name, ["a=b", "a;b", " "], "the name of a cookie"),
        (checks.zone, [" ", "a b", "a/b", "z" * 101], "the name of a zone"),
        (checks.source, ["", "x-tenant", "header:", "header:a b", "claim:", "claim:a..b"], "header:NAME"),
    ],
)
def test_says_what_would_be_right(check: Callable[[str], str], texts: list[str], expected: str) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"^expected .*{expected}|^{expected}"):
            check(text)


def test_no_limit_is_zero_and_a_limit_is_at_least_a_millisecond() -> None:
    assert [checks.seconds_or_never(value) for value in (0, 0.001, 5)] == [0, 0.001, 5]
    with pytest.raises(ValueError, match="expected 0 for never, or a number"):
        checks.seconds_or_never(1e-9)


def test_names_what_is_there_twice() -> None:
    checks.distinct_names("models", ["a", "b"])
    with pytest.raises(PydanticCustomError) as caught:
        checks.distinct_names("models", ["a", "b", "b"])
    assert caught.value.context is not None
    assert caught.value.context["field"] == "models.b"


def test_names_both_places_of_an_address() -> None:
    checks.distinct_addresses([("listen", "a:1"), ("xds_address", "a:2")])
    with pytest.raises(PydanticCustomError, match="expected an address that listen does not have") as caught:
        checks.distinct_addresses([("listen", "a:1"), ("xds_address", "a:2"), ("xds_metrics", "a:1")])
    assert caught.value.context is not None
    assert caught.value.context["field"] == "xds_metrics"
