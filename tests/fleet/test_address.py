from __future__ import annotations

import pytest

from fleet import address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("10.0.0.7:8000", "10.0.0.7", 8000), ("[fd00::1]:80", "fd00::1", 80), ("pod.svc:9", "pod.svc", 9)],
)
def test_splits_and_joins_addresses_of_every_kind(text: str, host: str, port: int) -> None:
    assert address.split(text) == (host, port)
    assert address.join(host, port) == text


def test_tells_addresses_from_names() -> None:
    assert address.is_ip("10.0.0.7:1")
    assert address.is_ip("[fd00::1]:1")
    assert not address.is_ip("pod.svc:1")


def test_gives_the_path_of_a_unix_address_only() -> None:
    assert address.unix_path("unix:/run/x.sock") == "/run/x.sock"
    assert address.unix_path("127.0.0.1:1") is None


def test_each_worker_has_an_address_of_its_own() -> None:
    assert [address.of_worker("[::1]:80", n) for n in range(2)] == ["[::1]:80", "[::1]:81"]
    assert [address.of_worker("unix:/a.sock", n) for n in range(2)] == ["unix:/a.sock", "unix:/a.sock.1"]
