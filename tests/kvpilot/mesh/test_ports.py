from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from fleet.errors import ConfigError
from kvpilot.mesh.ports import dialable, free_ports, hold
from tests.support import free_address


def test_free_ports_are_distinct_and_can_be_listened_on() -> None:
    chosen = free_ports(8)
    assert len(set(chosen)) == 8
    for port in chosen:
        socket.create_server(("127.0.0.1", port)).close()


def test_free_ports_stay_below_the_range_of_outgoing_connections() -> None:
    assert max(free_ports(16)) < 32768


def test_free_ports_leave_taken_ones_alone() -> None:
    taken = frozenset(range(20_000, 29_990))
    assert not taken & set(free_ports(3, taken))


def test_an_address_in_use_names_who_asks_for_it_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        with pytest.raises(ConfigError) as caught:
            hold(address, source="my.yaml", field="listen", advice="take --port")
    assert str(caught.value) == (
        f"my.yaml: listen is '{address}': cannot listen there (address already in use); take --port"
    )


def _hold(address: str) -> socket.socket:
    return hold(address, source="my.yaml", field="listen", advice="take --port")


def _envoy(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_server((host, int(port)), reuse_port=True)


def test_a_held_address_is_for_envoy_only() -> None:
    address = free_address()
    with _hold(address), _envoy(address) as first, _envoy(address):
        for taken in (address, address.replace("127.0.0.1", "0.0.0.0")):
            with pytest.raises(ConfigError, match="address already in use"):
                _hold(taken)
        assert first.getsockname()[1] > 0


def test_a_held_address_is_kept_while_envoy_is_away_and_refuses_connections() -> None:
    address = free_address()
    host, _, port = address.rpartition(":")
    with _hold(address):
        with pytest.raises(ConfigError):
            _hold(address)
        with pytest.raises(OSError, match="in use"):
            socket.create_server((host, int(port)))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def test_envoy_gets_every_connection_to_a_held_address_which_is_free_at_once_afterwards() -> None:
    address = free_address()
    for _ in range(2):
        with _hold(address), _envoy(address) as envoy:
            for _ in range(50):
                with socket.create_connection(envoy.getsockname()):
                    envoy.accept()[0].close()  # closed by the server first: the port is left in TIME_WAIT


def test_of_several_who_want_an_address_at_once_one_gets_it() -> None:
    def attempt(address: str) -> socket.socket | None:
        try:
            return _hold(address)
        except ConfigError:
            return None

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            held = [s for s in pool.map(attempt, [free_address()] * 8) if s is not None]
            for each in held:
                each.close()
            assert len(held) == 1


@pytest.mark.parametrize(
    ("listens", "dials"),
    [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80"), ("a:1", "a:1")],
)
def test_a_wildcard_is_dialled_over_loopback(listens: str, dials: str) -> None:
    assert dialable(listens) == dials
