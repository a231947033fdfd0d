from __future__ import annotations

import json

import pytest

from ext_proc.picker import Picker
from ext_proc.steer import Steerer
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings

SETTINGS = PickerSettings(max_hashed_bytes=4096)


def endpoint(address: str, version: str) -> Endpoint:
    return Endpoint(address, "llama", version, "p", Hardware("H100-80GB"))


FLEET = Fleet(
    (
        Model(
            "llama",
            (
                Version("stable", 90, tuple(endpoint(f"10.0.0.{n}:80", "stable") for n in range(1, 5))),
                Version("canary", 10, (endpoint("10.0.1.1:80", "canary"),)),
            ),
        ),
    )
)
CHAT = "/v1/chat/completions"


@pytest.fixture
def steerer() -> Steerer:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    return Steerer(SETTINGS, FLEET, PrefixHasher(b"k", SETTINGS.block_bytes), picker)


def chat(content: str, **more: object) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()


def test_picks_only_inside_the_cluster_that_the_route_chose(steerer: Steerer) -> None:
    for cluster, addresses in (
        ("llama/stable", {f"10.0.0.{n}:80" for n in range(1, 5)}),
        ("llama/canary", {"10.0.1.1:80"}),
    ):
        for n in range(20):
            decision = steerer.steer(cluster, CHAT, {}, chat(f"{n}" * 2000), float(n)).decision
            assert decision is not None
            assert set(decision.endpoints) <= addresses


def test_tenants_of_one_cache_salt_share_blocks_and_others_do_not(steerer: Steerer) -> None:
    text = "word " * 500
    steerer.steer("llama/stable", CHAT, {}, chat(text, cache_salt="a"), 0.0)
    same = steerer.steer("llama/stable", CHAT, {}, chat(text, cache_salt="a"), 1.0).decision
    other = steerer.steer("llama/stable", CHAT, {}, chat(text, cache_salt="b"), 1.0).decision
    assert same is not None
    assert other is not None
    assert same.matched_tokens > 0
    assert other.matched_tokens == 0


def test_hashes_no_further_than_the_configured_cap_and_prices_the_whole_prompt(steerer: Steerer) -> None:
    steerer.steer("llama/canary", CHAT, {}, chat("x" * 1_000_000), 0.0)
    again = steerer.steer("llama/canary", CHAT, {}, chat("x" * 1_000_000), 0.0).decision
    assert again is not None
    assert again.matched_tokens == 4096 / 4
    assert again.reasons[0].uncached_tokens == pytest.approx((1_000_000 - 4096) / 4, rel=0.001)


def test_prices_the_part_of_a_body_that_envoy_did_not_send(steerer: Steerer) -> None:
    whole = chat("x" * 1_000_000)
    headers = {"content-length": str(len(whole))}
    steered = steerer.steer("llama/canary", CHAT, headers, whole[:100_000], 0.0).decision
    assert steered is not None
    assert steered.reasons[0].uncached_tokens == pytest.approx(250_000, rel=0.01)


@pytest.mark.parametrize("length", ["", "abc", "-5", "٣٣٣٣٣٣", "9" * 500, "1"])
def test_does_not_believe_a_content_length_that_makes_no_sense(steerer: Steerer, length: str) -> None:
    body = chat("x" * 4000)
    steered = steerer.steer("llama/canary", CHAT, {"content-length": length}, body, 0.0).decision
    assert steered is not None
    assert steered.reasons[0].uncached_tokens == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize(
    ("cluster", "body", "outcome"),
    [
        ("elsewhere", chat("hi"), "unknown-cluster"),
        ("", chat("hi"), "unknown-cluster"),
        ("llama/stable", b"not json", "not-json"),
        ("llama/stable", chat("hi"), "steered"),
    ],
)
def test_says_in_a_word_what_became_of_a_request(
    steerer: Steerer, cluster: str, body: bytes, outcome: str
) -> None:
    assert steerer.steer(cluster, CHAT, {}, body, 0.0).outcome == outcome


def test_wants_the_body_of_posts_it_can_read_only(steerer: Steerer) -> None:
    assert steerer.wants_body("POST", CHAT)
    assert not steerer.wants_body("GET", CHAT)
    assert not steerer.wants_body("POST", "/v1/embeddings")
