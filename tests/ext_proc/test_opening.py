from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from ext_proc import opening
from ext_proc.trust import NO_EVIDENCE
from tests.ext_proc.messages import headers


def announcing(request: int, response: int) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders())
    message.protocol_config.request_body_mode = request
    message.protocol_config.response_body_mode = response
    return message


def hinting(subset: Any) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    message.metadata_context.filter_metadata["envoy.lb.subset_hint"][
        "x-gateway-destination-endpoint-subset"
    ] = subset
    return message


def test_reads_headers_as_bytes_or_as_text_and_whatever_bytes() -> None:
    message = pb.HttpHeaders()
    message.headers.headers.append(base_pb2.HeaderValue(key="a", raw_value=b"\xff1"))
    message.headers.headers.append(base_pb2.HeaderValue(key="b", value="2"))
    assert opening.headers_of(message) == {"a": "\ufffd1", "b": "2"}


def test_reads_trailers_like_headers() -> None:
    message = pb.HttpTrailers()
    message.trailers.headers.add(key="grpc-status", raw_value=b"14")
    assert opening.trailers_of(message) == {"grpc-status": "14"}
    assert opening.trailers_of(pb.HttpTrailers()) == {}


def test_finds_the_cluster_in_the_attributes_of_any_filter() -> None:
    assert opening.cluster_of(pb.ProcessingRequest.FromString(headers())) == "llama/stable"
    assert opening.cluster_of(pb.ProcessingRequest()) == ""


@pytest.mark.parametrize(
    ("request_mode", "response_mode", "duplex", "back", "heard"),
    [
        (4, 4, True, True, True),
        (4, 0, True, False, False),
        (4, 1, True, False, True),
        (3, 0, False, False, False),
    ],
)
def test_knows_the_modes_that_the_first_message_announces(
    request_mode: int, response_mode: int, duplex: bool, back: bool, heard: bool
) -> None:
    message = announcing(request_mode, response_mode)
    assert opening.is_duplex(message.SerializeToString()) is duplex
    assert opening.wants_answers_back(message) is back
    assert opening.hears_answers(message) is heard


def test_where_nothing_is_announced_it_is_no_duplex_and_answers_go_back() -> None:
    silent = pb.ProcessingRequest(request_headers=pb.HttpHeaders())
    assert not opening.is_duplex(silent.SerializeToString())
    assert opening.wants_answers_back(silent)
    assert opening.hears_answers(silent)


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (["a:1", " b:2 "], ("a:1", "b:2")),
        ("a:1, b:2,", ("a:1", "b:2")),
        ([], ()),
        ("", ()),
        (5, ()),
        ([5, None], ()),
    ],
)
def test_reads_the_subset_as_a_list_or_as_text(subset: Any, expected: tuple[str, ...]) -> None:
    assert opening.subset_of(hinting(subset)) == expected


def test_no_subset_is_not_an_empty_one() -> None:
    assert opening.subset_of(pb.ProcessingRequest()) is None


def test_reads_who_serves() -> None:
    message = pb.ProcessingRequest()
    assert opening.served_of(message) == ""
    message.metadata_context.filter_metadata["envoy.lb"]["other"] = "x"
    assert opening.served_of(message) == ""
    message.metadata_context.filter_metadata["envoy.lb"]["x-gateway-destination-endpoint-served"] = "a:1"
    assert opening.served_of(message) == "a:1"


@given(data=st.binary(max_size=80))
def test_any_bytes_announce_something_or_nothing(data: bytes) -> None:
    assert opening.is_duplex(data) in (True, False)


def test_what_envoy_says_of_the_caller_comes_with_the_headers() -> None:
    message = hinting(["a:1"])
    message.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]["payload"] = {"tenant": "acme"}
    message.attributes["envoy.filters.http.ext_proc"]["connection.uri_san_peer_certificate"] = "spiffe://a"
    evidence = opening.request_headers_of(message).evidence
    assert evidence.certificate == "spiffe://a"
    assert evidence.claims == {"payload": {"tenant": "acme"}}  # what speaks of endpoints is no claim
    assert opening.request_headers_of(hinting(["a:1"])).evidence is NO_EVIDENCE
