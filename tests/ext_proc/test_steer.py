from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ext_proc.picker import Picker
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings

if TYPE_CHECKING:
    from ext_proc.request import RoutingRequest

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
    return make_steerer(Picker(SETTINGS, FLEET.endpoints.values()))


def make_steerer(picker: Picker, settings: PickerSettings = SETTINGS, fleet: Fleet = FLEET) -> Steerer:
    room = WaitingRoom(picker, longest=0, places=1)  # nobody is held
    return Steerer(settings, fleet, PrefixHasher(b"k", settings.block_bytes), picker, room)


def placed_by(
    steerer: Steerer, body: bytes, headers: dict[str, str] | None = None, now: float = 0.0
) -> RoutingRequest:
    """What the picker was asked for."""
    decision = steerer.steer("llama/stable", CHAT, headers or {}, body, now).decision
    assert decision is not None
    return decision.placed.request


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
    assert again.reasons[0].prediction.uncached_tokens == pytest.approx((1_000_000 - 4096) / 4, rel=0.001)


def test_prices_the_part_of_a_body_that_envoy_did_not_send(steerer: Steerer) -> None:
    whole = chat("x" * 1_000_000)
    headers = {"content-length": str(len(whole))}
    steered = steerer.steer("llama/canary", CHAT, headers, whole[:100_000], 0.0).decision
    assert steered is not None
    assert steered.reasons[0].prediction.uncached_tokens == pytest.approx(250_000, rel=0.01)


@pytest.mark.parametrize("length", ["", "abc", "-5", "٣٣٣٣٣٣", "9" * 500, "1"])
def test_does_not_believe_a_content_length_that_makes_no_sense(steerer: Steerer, length: str) -> None:
    body = chat("x" * 4000)
    steered = steerer.steer("llama/canary", CHAT, {"content-length": length}, body, 0.0).decision
    assert steered is not None
    assert steered.reasons[0].prediction.uncached_tokens == pytest.approx(1000, rel=0.01)


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


def test_counts_by_protocol_what_it_steers_and_what_it_cannot_read(steerer: Steerer) -> None:
    steerer.steer("llama/stable", CHAT, {}, chat("hi"), 0.0)
    steerer.steer("llama/stable", CHAT, {}, b"?", 0.0)
    steerer.steer("llama/stable", "/v1/embeddings", {}, b"{}", 0.0)
    steerer.steer("elsewhere", CHAT, {}, chat("hi"), 0.0)
    assert steerer.tallies.by_protocol == {
        ("chat", "steered"): 1,
        ("chat", "unreadable"): 1,
        ("embeddings", "unreadable"): 1,
        ("chat", "unknown-cluster"): 1,
    }
    assert steerer.tallies.unreadable == {("chat", "not-json"): 1, ("embeddings", "no-input"): 1}


@pytest.mark.parametrize(
    ("announced", "sent", "counted"), [(101, 50, 1), (100, 100, 0), (0, 101, 1), (0, 100, 0)]
)
def test_counts_bodies_that_envoy_cannot_retry(announced: int, sent: int, counted: int) -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    hasher = PrefixHasher(b"k", SETTINGS.block_bytes)
    steerer = Steerer(SETTINGS, FLEET, hasher, picker, WaitingRoom(picker, 0, 1), retry_bytes=100)
    headers = {"content-length": str(announced)} if announced else {}
    steerer.steer("llama/stable", CHAT, headers, b"x" * sent, 0.0)
    assert steerer.tallies.not_retriable == counted


def test_token_ids_count_exactly_and_their_blocks_are_as_long_as_they_say(steerer: Steerer) -> None:
    body = json.dumps({"prompt_token_ids": list(range(200))}).encode()
    asked = placed_by(steerer, body)
    assert asked.prompt_tokens == 200
    assert (len(asked.blocks), asked.tokens_per_block) == (3, 64)
    text = placed_by(steerer, chat("\0\0\0\1" * 200))
    assert not set(asked.blocks) & set(text.blocks)


def test_embeddings_are_load_and_neither_prefix_nor_answer(steerer: Steerer) -> None:
    body = json.dumps({"input": "word " * 800}).encode()
    decision = steerer.steer("llama/stable", "/v1/embeddings", {}, body, 0.0).decision
    assert decision is not None
    asked = decision.placed.request
    assert (asked.prompt_tokens, list(asked.blocks), asked.output_limit, asked.streamed) == (
        1000,
        [],
        0,
        False,
    )


def test_the_models_own_name_and_none_are_the_same_prefix_and_an_adapter_is_another(steerer: Steerer) -> None:
    text = "word " * 500
    plain, named = placed_by(steerer, chat(text)), placed_by(steerer, chat(text, model="llama"))
    adapted = placed_by(steerer, chat(text, lora_request={"lora_name": "sql"}))
    assert plain.blocks == named.blocks
    assert not set(plain.blocks) & set(adapted.blocks)


def test_prices_what_was_not_parsed_of_a_body_and_what_was_not_unpacked() -> None:
    settings = PickerSettings(max_parsed_bytes=10_000)
    steerer = make_steerer(Picker(settings, FLEET.endpoints.values()), settings)
    text = "".join(f"{n} " for n in range(100_000))
    body = chat(text)
    assert placed_by(steerer, body).prompt_tokens == pytest.approx(len(text) / 4, rel=0.02)
    packed = placed_by(steerer, gzip.compress(body), {"content-encoding": "gzip"})
    assert packed.prompt_tokens == pytest.approx(len(text) / 4, rel=0.5)  # digits pack unevenly


def test_sessions_are_looked_for_where_the_settings_say() -> None:
    settings = PickerSettings(session_body_keys=("metadata.thread",))
    steerer = make_steerer(Picker(settings, FLEET.endpoints.values()), settings)
    body = chat("hi", user="u", metadata={"thread": "t"})
    assert placed_by(steerer, body).session == "t"
    assert placed_by(steerer, body, {"x-session-id": "s"}).session == "s"


def test_wants_the_body_of_posts_it_can_read_only(steerer: Steerer) -> None:
    assert steerer.wants_body("POST", CHAT)
    assert not steerer.wants_body("GET", CHAT)
    assert not steerer.wants_body("POST", "/v1/models")


@pytest.mark.parametrize(
    ("sent", "counts_as"),
    [("batch", "batch"), ("interactive", "interactive"), ("urgent", "interactive"), ("", "interactive")],
)
def test_the_class_is_what_the_configured_header_says(sent: str, counts_as: str) -> None:
    settings = PickerSettings(class_header="X-Workload")
    steerer = make_steerer(Picker(settings, FLEET.endpoints.values()), settings)
    assert placed_by(steerer, chat("hi"), {"x-workload": sent}).workload_class == counts_as
    assert placed_by(steerer, chat("hi"), {"x-class": "batch"}).workload_class == "interactive"


@pytest.mark.parametrize("header", ["", "x-workload", "x-class", "class"])
def test_no_header_says_the_class_where_none_is_configured(steerer: Steerer, header: str) -> None:
    assert placed_by(steerer, chat("hi"), {header: "batch"}).workload_class == "interactive"


def test_a_request_comes_from_the_configured_zone_and_prefers_it() -> None:
    settings = PickerSettings(zone="b")
    stable = tuple(replace(e, zone=z) for e, z in zip(FLEET.clusters["llama/stable"], "aaba", strict=True))
    fleet = Fleet((Model("llama", (Version("stable", 1, stable),)),))
    for seed in range(5):
        picker = Picker(settings, fleet.endpoints.values(), seed=seed)
        steered = make_steerer(picker, settings, fleet).steer("llama/stable", CHAT, {}, chat("hi"), 0.0)
        assert steered.decision is not None
        assert steered.decision.placed.request.zone == "b"
        assert steered.decision.endpoints[0] == "10.0.0.3:80"


def test_an_adapter_is_one_only_where_an_engine_of_the_cluster_lists_it() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    steerer = make_steerer(picker)
    picker.observe_loaded("10.0.0.2:80", ["llama"], ["sql"])
    picker.observe_loaded("10.0.1.1:80", ["llama"], ["poems"])  # the canary's
    named = ("sql", "poems", "llama", "my-alias")
    assert [placed_by(steerer, chat("hi", model=name)).lora for name in named] == ["sql", "", "", ""]
    assert placed_by(steerer, chat("hi")).lora == ""


def test_goes_where_the_adapter_is_loaded() -> None:
    for seed in range(5):
        picker = Picker(SETTINGS, FLEET.endpoints.values(), seed=seed)
        for n, loaded in ((1, []), (2, ["sql"]), (3, []), (4, [])):
            picker.observe_loaded(f"10.0.0.{n}:80", None, loaded)
        decision = make_steerer(picker).steer("llama/stable", CHAT, {}, chat("hi", model="sql"), 0.0).decision
        assert decision is not None
        assert decision.endpoints[0] == "10.0.0.2:80"


def test_another_name_for_the_model_itself_spreads_as_its_own_name_does(steerer: Steerer) -> None:
    for name in ("llama", "my-alias"):
        firsts = set()
        for n in range(8):
            decision = steerer.steer("llama/stable", CHAT, {}, chat(f"{n}" * 999, model=name), 0.0).decision
            assert decision is not None
            assert decision.reasons[0].prediction.detour == 0
            firsts.add(decision.endpoints[0])
        assert len(firsts) == 4, name


def test_passes_on_the_clients_limit_and_the_model_it_named(steerer: Steerer) -> None:
    asked = placed_by(steerer, chat("hi", model="llama", max_tokens=77))
    assert (asked.output_limit, asked.model) == (77, "llama")
    assert placed_by(steerer, chat("hi")).output_limit is None
