from __future__ import annotations

from dataclasses import replace

from ext_proc.pools import Pools
from fleet.model import Endpoint, Fleet, Hardware, Model, Version


def version(name: str, *addresses: str) -> Version:
    return Version(name, 1, tuple(Endpoint(a, "m", name, "p", Hardware("H100-80GB")) for a in addresses))


TWO = Pools(Fleet((Model("m", (version("a", "10.0.0.1:80", "10.0.0.2:80"), version("b", "10.0.0.3:80"))),)))
ONE = Pools(Fleet((Model("m", (version("a", "10.0.0.1:80"), version("empty"))),)))


def test_a_route_of_ours_names_the_cluster_before_all_else() -> None:
    assert TWO.meant("m/b", "m/a", ["10.0.0.1:80"]) == "m/b"


def test_else_the_port_does_and_then_the_endpoints_that_are_allowed() -> None:
    assert TWO.meant("outbound|80||pool", "m/a", ["10.0.0.3:80"]) == "m/a"
    assert TWO.meant("outbound|80||pool", "", ["10.9.9.9:80", "10.0.0.3:80"]) == "m/b"


def test_the_only_cluster_is_meant_where_nobody_says_and_none_of_several_is() -> None:
    assert ONE.meant("", "", None) == "m/a"
    assert ONE.meant("", "", ["10.9.9.9:80"]) == "m/a"
    assert TWO.meant("", "", None) == ""
    assert TWO.meant("", "", []) == ""


def test_grpc_goes_where_the_same_version_serves_it() -> None:
    stable = version("a", "10.0.0.1:80")
    serving = replace(stable, endpoints=(replace(stable.endpoints[0], grpc_address="10.0.0.1:81"),))
    pools = Pools(Fleet((Model("m", (serving,)),)))
    assert pools.meant("", "", None) == "m/a"
    assert pools.meant("", "", ["10.0.0.1:81"], grpc=True) == "m/a/grpc"
    assert pools.meant("", "m/a", None, grpc=True) == "m/a/grpc"
    assert ONE.meant("", "", None, grpc=True) == "m/a"


def test_tests_select_by_ip_or_by_address() -> None:
    assert TWO.selected("m/a", ("10.0.0.2",)) == ("10.0.0.2:80",)
    assert TWO.selected("m/a", ("10.0.0.2:80", "10.0.0.1")) == ("10.0.0.1:80", "10.0.0.2:80")
    assert TWO.selected("m/a", ("10.0.0.3",)) == ()
    assert TWO.selected("", ("10.0.0.3",)) == ()
