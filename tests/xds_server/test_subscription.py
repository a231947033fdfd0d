from __future__ import annotations

import pytest

from xds_server.resources.endpoints import empty_load_assignment
from xds_server.snapshot import CLUSTER, ENDPOINT, LISTENER, PUSH_ORDER, ROUTE, Resource, Snapshot
from xds_server.subscription import ProtocolError, Request, Response, Subscription


def snapshot(
    clusters: str = "ab",
    cluster: bytes = b"c",
    listener: bytes = b"l",
    route: bytes = b"r",
    **endpoints: bytes,
) -> Snapshot:
    """Clusters named by letters; `a=b"…"` gives the endpoints of cluster a."""
    return Snapshot(
        (
            Resource(LISTENER, "l", listener, frozenset({(ROUTE, "r")})),
            Resource(ROUTE, "r", route),
            *(Resource(CLUSTER, name, cluster + name.encode()) for name in clusters),
            *(Resource(ENDPOINT, name, endpoints.get(name, b"e")) for name in clusters),
        )
    )


def summary(responses: list[Response]) -> list[tuple[str, list[str]]]:
    return [(r.type_url, sorted(r.bodies)) for r in responses]


class Client:
    """A well-behaved client: it acknowledges what it gets."""

    def __init__(self, first: Snapshot) -> None:
        self.subscription = Subscription()
        self.snapshot = first
        self.nonces = dict.fromkeys(PUSH_ORDER, "")
        self.names: dict[str, tuple[str, ...]] = {}

    def ask(self, type_url: str, *names: str) -> list[Response]:
        self.names[type_url] = names
        self.subscription.receive(Request(type_url, self.nonces[type_url], names))
        return self.poll()

    def publish(self, newer: Snapshot) -> list[Response]:
        self.snapshot = newer
        return self.poll()

    def poll(self, *, acknowledge: bool = True) -> list[Response]:
        responses = self.subscription.due(self.snapshot)
        for response in responses:
            self.nonces[response.type_url] = response.nonce
            if acknowledge:
                self.acknowledge(response.type_url)
        return responses

    def acknowledge(self, type_url: str, error: str = "") -> None:
        names = self.names.get(type_url, ())
        self.subscription.receive(Request(type_url, self.nonces[type_url], names, error))


def connected(first: Snapshot) -> Client:
    """An Envoy that has everything."""
    client = Client(first)
    client.ask(CLUSTER)
    client.ask(ENDPOINT, "a", "b")
    client.ask(LISTENER)
    client.ask(ROUTE, "r")
    return client


def test_answers_each_type_with_what_was_asked() -> None:
    client = Client(snapshot())
    assert summary(client.ask(CLUSTER)) == [(CLUSTER, ["a", "b"])]
    assert summary(client.ask(ENDPOINT, "b")) == [(ENDPOINT, ["b"])]
    assert summary(client.ask(LISTENER)) == [(LISTENER, ["l"])]
    assert summary(client.ask(ROUTE, "r")) == [(ROUTE, ["r"])]
    assert client.poll() == []


def test_an_acknowledgement_is_not_answered() -> None:
    client = connected(snapshot())
    client.acknowledge(CLUSTER)
    client.acknowledge(ENDPOINT)
    assert client.poll() == []


def test_a_weight_change_sends_the_changed_endpoints_and_nothing_else() -> None:
    client = connected(snapshot())
    assert summary(client.publish(snapshot(a=b"heavier"))) == [(ENDPOINT, ["a"])]


def test_a_changed_cluster_brings_its_endpoints_again_without_waiting_for_an_ack() -> None:
    client = connected(snapshot())
    client.snapshot = snapshot(cluster=b"changed")
    responses = client.poll(acknowledge=False)
    assert summary(responses) == [(CLUSTER, ["a", "b"]), (ENDPOINT, ["a", "b"])]


def test_a_changed_listener_brings_its_routes_again() -> None:
    client = connected(snapshot())
    assert summary(client.publish(snapshot(listener=b"changed"))) == [(LISTENER, ["l"]), (ROUTE, ["r"])]


def test_pushes_in_make_before_break_order() -> None:
    client = connected(snapshot())
    everything = snapshot(cluster=b"2", listener=b"2", route=b"2", a=b"2", b=b"2")
    assert [r.type_url for r in client.publish(everything)] == [CLUSTER, ENDPOINT, LISTENER, ROUTE]


def test_a_removed_cluster_is_gone_from_the_next_full_response() -> None:
    client = connected(snapshot())
    first = client.publish(snapshot(clusters="a"))[0]
    assert sorted(first.bodies) == ["a"]


def test_names_added_later_are_answered_though_the_version_is_the_same() -> None:
    client = Client(snapshot())
    client.ask(ENDPOINT, "a")
    assert summary(client.ask(ENDPOINT, "a", "b")) == [(ENDPOINT, ["b"])]


def test_a_name_that_was_dropped_and_comes_back_is_answered_again() -> None:
    client = Client(snapshot())
    client.ask(ENDPOINT, "a", "b")
    client.ask(ENDPOINT, "b")
    assert summary(client.ask(ENDPOINT, "a", "b")) == [(ENDPOINT, ["a"])]


def test_stale_nonces_change_nothing() -> None:
    client = connected(snapshot())
    old = client.nonces[ENDPOINT]
    client.publish(snapshot(a=b"2"))
    client.subscription.receive(Request(ENDPOINT, old, ()))
    client.subscription.receive(Request(ENDPOINT, old, (), error="refused, but long ago"))
    assert summary(client.publish(snapshot(a=b"3"))) == [(ENDPOINT, ["a"])]


def test_a_refused_version_is_reported_once_and_not_sent_again() -> None:
    client = connected(snapshot())
    client.snapshot = snapshot(a=b"bad")
    bad = client.poll(acknowledge=False)[0]
    nack = client.subscription.receive(Request(ENDPOINT, bad.nonce, ("a", "b"), error="no such field"))
    assert nack is not None
    assert (nack.type_url, nack.version, nack.error) == (ENDPOINT, bad.version, "no such field")
    assert client.poll() == []
    assert client.poll() == []


def test_after_a_refusal_the_next_version_is_sent_whole() -> None:
    client = connected(snapshot())
    client.snapshot = snapshot(a=b"bad", b=b"good")
    client.poll(acknowledge=False)
    client.acknowledge(ENDPOINT, error="no")
    assert summary(client.publish(snapshot(a=b"mended", b=b"good"))) == [(ENDPOINT, ["a", "b"])]


def test_a_new_name_is_answered_even_while_a_version_is_refused() -> None:
    client = Client(snapshot())
    client.ask(ENDPOINT, "a")
    client.snapshot = snapshot(a=b"bad")
    client.poll(acknowledge=False)
    client.acknowledge(ENDPOINT, error="no")
    assert summary(client.ask(ENDPOINT, "a", "b")) == [(ENDPOINT, ["b"])]
    assert client.poll() == []


def test_a_changed_cluster_gets_its_endpoints_even_if_the_old_one_had_refused_them() -> None:
    client = connected(snapshot())
    client.snapshot = snapshot(a=b"bad")
    client.poll(acknowledge=False)
    client.acknowledge(ENDPOINT, error="no")
    changed = client.publish(snapshot(cluster=b"changed", a=b"bad"))
    assert summary(changed) == [(CLUSTER, ["a", "b"]), (ENDPOINT, ["a", "b"])]
    assert client.poll() == []


def test_a_refused_cluster_version_is_not_sent_in_a_loop() -> None:
    client = connected(snapshot())
    client.snapshot = snapshot(cluster=b"bad")
    client.poll(acknowledge=False)
    client.acknowledge(CLUSTER, error="no")
    client.acknowledge(ENDPOINT)
    assert client.poll() == []
    assert CLUSTER in [r.type_url for r in client.publish(snapshot(cluster=b"mended"))]


def test_endpoints_of_an_unknown_cluster_are_empty_rather_than_awaited() -> None:
    client = Client(snapshot())
    response = client.ask(ENDPOINT, "nobody")[0]
    assert response.bodies == {"nobody": empty_load_assignment("nobody")}
    assert client.poll() == []


def test_a_watch_that_could_not_be_answered_is_answered_later() -> None:
    client = Client(snapshot())
    assert client.ask(ROUTE, "later") == []
    newer = Snapshot((*client.snapshot.resources, Resource(ROUTE, "later", b"r2")))
    assert summary(client.publish(newer)) == [(ROUTE, ["later"])]


def test_a_client_may_name_the_clusters_it_wants() -> None:
    client = Client(snapshot())
    assert summary(client.ask(CLUSTER, "a")) == [(CLUSTER, ["a"])]
    assert client.publish(snapshot(clusters="abz")) == []


def test_no_names_mean_none_after_names_were_given() -> None:
    client = Client(snapshot())
    client.ask(CLUSTER, "a")
    client.ask(CLUSTER)
    assert client.publish(snapshot(cluster=b"2")) == []


def test_the_wildcard_may_be_asked_for_by_name() -> None:
    client = Client(snapshot())
    client.ask(CLUSTER, "a")
    assert summary(client.ask(CLUSTER, "*")) == [(CLUSTER, ["a", "b"])]


def test_no_names_mean_nothing_for_endpoints() -> None:
    client = Client(snapshot())
    assert client.ask(ENDPOINT) == []


def test_unknown_types_are_let_pass() -> None:
    client = Client(snapshot())
    client.subscription.receive(Request("type.googleapis.com/some.other.Thing", "", ("x",)))
    assert client.poll() == []


def test_a_request_without_a_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match="type_url"):
        Subscription().receive(Request(""))


def test_a_reconnected_client_gets_everything_again() -> None:
    client = connected(snapshot())
    client.subscription = Subscription()  # a new stream, whose first requests name the old one's nonces
    answers = [client.ask(type_url, *client.names[type_url]) for type_url in PUSH_ORDER]
    assert [summary(answer) for answer in answers] == [
        [(CLUSTER, ["a", "b"])],
        [(ENDPOINT, ["a", "b"])],
        [(LISTENER, ["l"])],
        [(ROUTE, ["r"])],
    ]
    assert client.poll() == []
