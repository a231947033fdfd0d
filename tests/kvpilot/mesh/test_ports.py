from __future__ import annotations

import socket

import pytest

from fleet.errors import ConfigError
from kvpilot.mesh.ports import dialable, free_ports, require_free


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
            require_free(address, source="my.yaml", field="listen", advice="take --port")
    assert str(caught.value) == (
        f"my.yaml: listen is '{address}': cannot listen there (address already in use); take --port"
    )


@pytest.mark.parametrize(
    ("listens", "dials"),
    [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.1:80", "10.0.0.1:80"), ("a:1", "a:1")],
)
def test_a_wildcard_is_dialled_over_loopback(listens: str, dials: str) -> None:
    assert dialable(listens) == dials
