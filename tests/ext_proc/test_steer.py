from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from ext_proc.admission.door import Admission
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from ext_proc.steer import Steered, Steerer
from ext_proc.trust import Evidence, RequestHeaders, Trust
from ext_proc.waiting import WaitingRoom
from fleet.model import Endpoint, Fleet, Hardware, Load, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import AdmissionSettings, PickerSettings, TenantsSettings, TrustSettings

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


def make_steerer(
    picker: Picker,
    settings: PickerSettings = SETTINGS,
    fleet: Fleet = FLEET,
    trust: TrustSettings | None = None,
    admission: AdmissionSettings | None = None,
    tenants: TenantsSettings | None = None,
) -> Steerer:
    room = WaitingRoom(picker, longest=0, places=1)  # nobody is held
    hasher = PrefixHasher(b"k", settings.block_bytes)
    door = Admission({"llama": admission or AdmissionSettings()}, tenants or TenantsSettings(), picker)
    return Steerer(settings, fleet, hasher, picker, room, Trust(trust or TrustSettings()), door)


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
    sessions = [placed_by(steerer, body, named).session for named in ({}, {"x-session-id": "s"})]
    assert [session.rpartition("\n")[2] for session in sessions] == ["t", "s"]  # behind the tenant


def test_considers_what_it_would_decide_and_books_nothing() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    steerer = make_steerer(picker)
    first = steerer.steer("llama/stable", CHAT, {}, chat("word " * 500), 0.0).decision
    assert first is not None
    picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
    considered = steerer.consider("llama/stable", CHAT, {}, chat("word " * 500), 2.0)
    assert not isinstance(considered, Steered)
    assert considered.candidates[0].prediction.address == first.endpoints[0]
    assert considered.candidates[0].prediction.matched_tokens > 0
    assert picker.in_flight == 0


def test_a_session_is_known_by_its_turns_and_not_by_what_was_only_considered() -> None:
    steerer, picker = fast_steerer()
    body, other = chat("word " * 2000), chat("other " * 2000)
    first = steerer.steer("llama/stable", CHAT, asked_for(body), body, 0.0).decision
    assert first is not None
    picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
    assert not isinstance(steerer.consider("llama/stable", CHAT, asked_for(other), other, 2.0), Steered)
    early = steerer.decide_early("llama/stable", asked_for(chat("word " * 2100)), 3.0)
    assert early is not None
    assert early.decision is not None
    assert list(early.decision.placed.request.blocks[:10]) == list(first.placed.request.blocks[:10])


@pytest.mark.parametrize(
    ("cluster", "reason"), [("elsewhere", "unknown-cluster"), ("llama/stable", "not-json")]
)
def test_says_why_it_would_not_decide(steerer: Steerer, cluster: str, reason: str) -> None:
    assert steerer.consider(cluster, CHAT, {}, b"not json", 0.0) == Steered(reason)


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


FAST = PickerSettings(session_fast_path=True)


def asked_for(body: bytes, session: str = "s", **more: str) -> dict[str, str]:
    sent = {":method": "POST", ":path": CHAT, "content-length": str(len(body)), **more}
    return sent | ({"x-session-id": session} if session else {})


def fast_steerer(settings: PickerSettings = FAST) -> tuple[Steerer, Picker]:
    picker = Picker(settings, FLEET.endpoints.values())
    return make_steerer(picker, settings), picker


def test_a_sessions_next_turn_goes_home_by_its_headers_alone() -> None:
    steerer, picker = fast_steerer()
    first_body = chat("word " * 2000)
    first = steerer.steer("llama/stable", CHAT, asked_for(first_body), first_body, 0.0).decision
    assert first is not None
    picker.finish(first.id, 1.0, endpoint=first.endpoints[0])
    longer = chat("word " * 2400)
    early = steerer.decide_early("llama/stable", asked_for(longer), 2.0)
    assert early is not None
    assert early.decision is not None
    assert early.decision.endpoints[0] == first.endpoints[0]
    # It owes what was added, and the next turn finds that there, too.
    added = 400 * 5 / FAST.bytes_per_token
    assert early.decision.placed.uncached_tokens == pytest.approx(added, rel=0.15)
    picker.finish(early.decision.id, 3.0, endpoint=first.endpoints[0])
    again = steerer.decide_early("llama/stable", asked_for(longer), 4.0)
    assert again is not None
    assert again.decision is not None
    assert again.decision.placed.uncached_tokens < 2 * FAST.tokens_per_block


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (asked_for(b"x" * 20_000, session="other"), "another session"),
        (asked_for(b"x" * 20_000, session=""), "no session"),
        (asked_for(b"x" * 5_000), "something new: a shorter body"),
        (asked_for(b"x" * 50_000), "too much was added"),
        ({":method": "POST", ":path": CHAT, "x-session-id": "s"}, "no length"),
        (asked_for(b"x" * 20_000, **{":path": "/v1/models"}), "a path that is not steered"),
        (asked_for(b"x" * 20_000, **{":method": "PUT"}), "a method that is not steered"),
    ],
)
def test_reads_what_it_cannot_know_from_the_headers(headers: dict[str, str], why: str) -> None:
    steerer, picker = fast_steerer()
    body = chat("word " * 2000)
    steerer.steer("llama/stable", CHAT, asked_for(body), body, 0.0)
    before = picker.in_flight
    assert steerer.decide_early("llama/stable", headers, 1.0) is None, why
    assert steerer.decide_early("llama/canary", asked_for(body), 1.0) is None
    assert steerer.decide_early("nowhere", asked_for(body), 1.0) is None
    assert picker.in_flight == before


def test_reads_every_turn_where_the_fast_path_is_off(steerer: Steerer) -> None:
    body = chat("word " * 2000)
    steerer.steer("llama/stable", CHAT, asked_for(body), body, 0.0)
    assert steerer.decide_early("llama/stable", asked_for(body), 1.0) is None


def test_a_session_is_no_chain_to_an_endpoint_that_is_slow_or_down() -> None:
    body = chat("word " * 2000)
    for trouble in ("busy", "down", "idle"):
        steerer, picker = fast_steerer()
        first = steerer.steer("llama/stable", CHAT, asked_for(body), body, 0.0).decision
        assert first is not None
        home = first.endpoints[0]
        picker.finish(first.id, 1.0, endpoint=home)
        if trouble == "busy":
            steered = steerer.steer("llama/stable", CHAT, asked_for(body), chat("word " * 2000), 1.5)
            assert steered.decision is not None
            huge = RoutingRequest((home,), 1_000_000, (), 64)
            assert picker.pick(huge, 1.5) is not None
        if trouble == "down":
            picker.observe(home, Load(at=0.0, ready=False), 1.5)
        early = steerer.decide_early("llama/stable", asked_for(body), 2.0)
        assert (early is None) == (trouble != "idle"), trouble


def test_a_grpc_stream_that_never_ends_is_decided_by_load_alone(steerer: Steerer) -> None:
    stream = {
        ":method": "POST",
        ":path": "/inference.GRPCInferenceService/ModelStreamInfer",
        "content-type": "application/grpc",
    }
    chosen = set()
    for n in range(4):
        early = steerer.decide_early("llama/stable", stream, float(n) / 1000)
        assert early is not None
        assert early.decision is not None
        chosen.add(early.decision.endpoints[0])
        assert not early.decision.placed.request.streamed  # its first byte times no prefill
    assert len(chosen) == 4
    unknown = steerer.decide_early("nowhere", stream, 1.0)
    assert unknown is not None
    assert unknown.outcome == "unknown-cluster"


def test_a_sessions_key_names_its_tenant(steerer: Steerer) -> None:
    assert placed_by(steerer, chat("hi"), {"x-session-id": "a"}).session == "\na"
    assert placed_by(steerer, chat("hi", session_id="b")).session == "\nb"
    assert placed_by(steerer, chat("hi")).session == ""


def grpc_fleet() -> Fleet:
    """The same, where two endpoints of the stable version serve gRPC."""
    model = FLEET.models[0]
    stable, canary = model.versions
    members = [replace(e, grpc_address=f"{e.address[:-3]}:81") for e in stable.endpoints[:2]]
    served = replace(stable, endpoints=(*members, *stable.endpoints[2:]))
    return Fleet((replace(model, versions=(served, canary)),))


STREAM_HEADERS = {
    ":method": "POST",
    ":path": "/inference.GRPCInferenceService/ModelStreamInfer",
    "content-type": "application/grpc",
}


def test_a_grpc_cluster_has_the_endpoints_that_serve_it_and_names_where_they_do() -> None:
    fleet = grpc_fleet()
    steerer = make_steerer(Picker(SETTINGS, fleet.endpoints.values()), fleet=fleet)
    steered = steerer.decide_early("llama/stable/grpc", STREAM_HEADERS, 0.0)
    assert steered is not None
    assert steered.decision is not None
    assert set(steered.decision.endpoints) == {"10.0.0.1:80", "10.0.0.2:80"}
    assert {f"{a[:-1]}0" for a in steered.decision.destinations} == set(steered.decision.endpoints)
    plain = steerer.steer("llama/stable", CHAT, {}, chat("hello"), 0.0).decision
    assert plain is not None
    assert plain.destinations == plain.endpoints


def test_a_stream_that_opens_owes_nothing_and_times_nothing() -> None:
    fleet = grpc_fleet()
    picker = Picker(SETTINGS, fleet.endpoints.values())
    steerer = make_steerer(picker, fleet=fleet)
    warm = steerer.steer("llama/stable", CHAT, {}, chat("long " * 20_000), 0.0).decision
    assert warm is not None
    picker.finish(warm.id, 9.0, endpoint=warm.endpoints[0])
    headers = STREAM_HEADERS | {"x-model": "llama"}
    steered = steerer.decide_early("llama/stable/grpc", headers, 10.0)
    assert steered is not None
    assert steered.decision is not None
    request = steered.decision.placed.request
    assert (request.prompt_tokens, request.streamed, request.model) == (0, False, "llama")
    assert picker.queues(10.1) == [0.0] * 5
    picker.finish(steered.decision.id, 900.0, endpoint=steered.decision.endpoints[0])
    assert picker.in_flight == 0


def test_the_model_is_read_from_the_configured_header_where_the_body_names_none(steerer: Steerer) -> None:
    assert placed_by(steerer, chat("hello"), {"x-model": "llama"}).model == "llama"
    assert placed_by(steerer, chat("hello", model="other"), {"x-model": "llama"}).model == "other"


TRUST = TrustSettings(
    tenant=("header:x-tenant",), priority=("header:x-priority",), ttft_objective_ms=("header:x-slo-ttft-ms",)
)
NAMED = {"x-tenant": "a", "x-priority": "-10", "x-slo-ttft-ms": "1500", "x-session-id": "s"}


def test_a_request_is_the_callers_only_as_far_as_trusted_sources_say() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    asked = placed_by(make_steerer(picker), chat("hi"), NAMED, now=5.0)
    assert (asked.tenant, asked.priority, asked.deadline, asked.session) == ("", 0, float("inf"), "\ns")
    asked = placed_by(make_steerer(picker, trust=TRUST), chat("hi"), NAMED, now=5.0)
    assert (asked.tenant, asked.priority, asked.deadline) == ("a", -10, 6.5)
    assert asked.session == "a\ns"


def test_what_envoy_says_of_a_caller_comes_with_the_headers() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    trust = TrustSettings(tenant=("claim:payload.org",), priority=("claim:payload.rank",))
    headers = RequestHeaders({"x-tenant": "evil"})
    headers.evidence = Evidence(claims={"payload": {"org": "a", "rank": 7}})
    asked = placed_by(make_steerer(picker, trust=trust), chat("hi"), headers)
    assert (asked.tenant, asked.priority) == ("a", 7)


def test_tenants_share_neither_blocks_nor_sessions() -> None:
    steerer = make_steerer(Picker(SETTINGS, FLEET.endpoints.values()), trust=TRUST)
    text = chat("word " * 500)
    first = placed_by(steerer, text, {"x-tenant": "a", "x-session-id": "s"})
    matched = {}
    for tenant in ("a", "b", ""):
        headers = {"x-tenant": tenant, "x-session-id": "s"}
        decision = steerer.steer("llama/stable", CHAT, headers, text, 1.0).decision
        assert decision is not None
        matched[tenant] = decision.matched_tokens
        same = tenant == "a"
        assert (decision.placed.request.session == first.session) == same
        assert (decision.placed.request.blocks == first.blocks) == same
    assert matched["a"] > 0
    assert matched["b"] == matched[""] == 0


def test_a_tenants_salt_cannot_imitate_another_tenant() -> None:
    steerer = make_steerer(Picker(SETTINGS, FLEET.endpoints.values()), trust=TRUST)
    text = "word " * 500
    as_tenant = placed_by(steerer, chat(text), {"x-tenant": "a"})
    as_salt = placed_by(steerer, chat(text, cache_salt="a"))
    assert not set(as_tenant.blocks) & set(as_salt.blocks)


def test_says_that_a_request_is_refused_and_places_it_nowhere() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    tenants = TenantsSettings(budget_tokens=1000)
    steerer = make_steerer(picker, trust=TRUST, tenants=tenants)
    big = chat("word " * 2000)
    assert steerer.steer("llama/stable", CHAT, {"x-tenant": "a"}, big, 0.0).outcome == "steered"
    steered = steerer.steer("llama/stable", CHAT, {"x-tenant": "a"}, big, 0.0)
    assert (steered.outcome, steered.decision, steered.held) == ("refused", None, None)
    assert steered.refused is not None
    assert steered.refused.reason == "budget"
    assert picker.in_flight == 1
    assert steerer.steer("llama/stable", CHAT, {"x-tenant": "b"}, big, 0.0).outcome == "steered"


def test_an_objective_that_cannot_be_met_is_refused_where_the_model_says_so() -> None:
    picker = Picker(SETTINGS, FLEET.endpoints.values())
    admission = AdmissionSettings(objective_unmet="shed", default_priority=-1)
    steerer = make_steerer(picker, trust=TRUST, admission=admission)
    big = chat("x" * 400_000)
    steered = steerer.steer("llama/stable", CHAT, {"x-slo-ttft-ms": "50"}, big, 0.0)
    assert steered.refused is not None
    assert steered.refused.reason == "objective"
    assert steerer.steer("llama/stable", CHAT, {"x-slo-ttft-ms": "60000"}, big, 0.0).outcome == "steered"


def test_a_gateways_subset_of_many_is_one_list_for_all_its_requests() -> None:
    addresses = [f"10.0.2.{n}:80" for n in range(40)]
    version = Version("stable", 1, tuple(endpoint(address, "stable") for address in addresses))
    fleet = Fleet((Model("llama", (version,)),))
    steerer = make_steerer(Picker(SETTINGS, fleet.endpoints.values()), fleet=fleet)

    def asked(among: list[str], now: float) -> RoutingRequest:
        decision = steerer.steer("llama/stable", CHAT, {}, chat("hi"), now, among).decision
        assert decision is not None
        return decision.placed.request

    assert asked(addresses[:30], 1.0).candidates is asked(addresses[:30], 2.0).candidates
    assert asked(addresses[:30], 3.0).candidates == tuple(addresses[:30])
    whole = steerer.steer("llama/stable", CHAT, {}, chat("hi"), 4.0).decision
    assert whole is not None
    assert asked(addresses, 5.0).candidates is whole.placed.request.candidates
