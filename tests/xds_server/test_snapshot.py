from __future__ import annotations

import pytest

from xds_server.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, Resource, Snapshot, SnapshotError


def cluster(name: str, body: bytes = b"c") -> Resource:
    return Resource(CLUSTER, name, body, frozenset({(ENDPOINT, name)}))


def assignment(name: str, body: bytes = b"e") -> Resource:
    return Resource(ENDPOINT, name, body)


def test_refuses_a_cluster_without_its_endpoints() -> None:
    with pytest.raises(SnapshotError, match="Cluster a needs ClusterLoadAssignment a"):
        Snapshot((cluster("a"),))


def test_refuses_a_route_to_a_cluster_that_is_not_there() -> None:
    with pytest.raises(SnapshotError, match="RouteConfiguration r needs Cluster a"):
        Snapshot((Resource(ROUTE, "r", b"", frozenset({(CLUSTER, "a")})),))


def test_refuses_a_listener_without_its_routes() -> None:
    with pytest.raises(SnapshotError, match="Listener l needs RouteConfiguration r"):
        Snapshot((Resource(LISTENER, "l", b"", frozenset({(ROUTE, "r")})),))


def test_refuses_a_name_twice() -> None:
    with pytest.raises(SnapshotError, match="twice"):
        Snapshot((assignment("a"), assignment("a", b"other")))


def test_versions_depend_on_content_alone() -> None:
    one = Snapshot((cluster("a"), cluster("b"), assignment("a"), assignment("b")))
    other_order = Snapshot((assignment("b"), cluster("b"), assignment("a"), cluster("a")))
    assert one.versions == other_order.versions


def test_a_changed_body_changes_the_version_of_its_type_only() -> None:
    one = Snapshot((cluster("a"), assignment("a")))
    two = Snapshot((cluster("a"), assignment("a", b"heavier")))
    changed = {kind for kind in one.versions if one.versions[kind] != two.versions[kind]}
    assert changed == {ENDPOINT}


def test_content_does_not_flow_from_one_resource_into_the_next() -> None:
    one = Snapshot((assignment("a", b"xy"), assignment("b", b"z")))
    two = Snapshot((assignment("a", b"x"), assignment("b", b"yz")))
    assert one.versions != two.versions
