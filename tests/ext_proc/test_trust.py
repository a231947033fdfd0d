from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.trust import NOBODY, Caller, Evidence, RequestHeaders, Trust
from fleet.settings import TrustSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

CERTIFICATE = "spiffe://cluster.local/ns/team-a/sa/app"


def asked(headers: Mapping[str, str], certificate: str = "", claims: Any = None) -> RequestHeaders:
    made = RequestHeaders(headers)
    made.evidence = Evidence(certificate, claims or {})
    return made


EVERYTHING = asked(
    {"x-tenant": "evil", "x-priority": "1000", "x-slo-ttft-ms": "1"},
    CERTIFICATE,
    {"payload": {"tenant": "evil", "priority": 1000}},
)


def test_believes_nobody_unless_a_source_is_configured() -> None:
    assert Trust(TrustSettings()).caller(EVERYTHING) == NOBODY


def test_a_trusted_source_makes_no_other_trusted() -> None:
    trust = Trust(TrustSettings(tenant=("header:X-Gateway-Tenant",)))
    assert trust.caller(EVERYTHING) == NOBODY
    assert trust.caller(asked({"x-gateway-tenant": "a"})) == Caller(tenant="a")


def test_each_kind_of_source_names_the_caller() -> None:
    by_header = TrustSettings(
        tenant=("header:x-tenant",),
        priority=("header:x-priority",),
        ttft_objective_ms=("header:x-slo-ttft-ms",),
    )
    headers = {"x-tenant": "a", "x-priority": "-10", "x-slo-ttft-ms": "1500"}
    assert Trust(by_header).caller(headers) == Caller("a", -10, 1.5)
    by_claim = TrustSettings(
        tenant=("claim:payload.org.name",), priority=("claim:payload.rank",), ttft_objective_ms=("claim:slo",)
    )
    claims = {"payload": {"org": {"name": "a"}, "rank": 10.0}, "slo": "250.5"}
    assert Trust(by_claim).caller(asked({}, claims=claims)) == Caller("a", 10, 0.2505)
    assert Trust(TrustSettings(tenant=("certificate",))).caller(asked({}, CERTIFICATE)).tenant == CERTIFICATE


def test_the_first_source_that_says_something_wins() -> None:
    trust = Trust(TrustSettings(tenant=("claim:sub", "header:x-tenant")))
    assert trust.caller(asked({"x-tenant": "b"}, claims={"sub": "a"})).tenant == "a"
    assert trust.caller(asked({"x-tenant": "b"})).tenant == "b"


@pytest.mark.parametrize(
    ("said", "priority"),
    [
        ("batch", -10),
        ("CRITICAL", 100),
        ("-7", -7),
        ("0", 0),
        ("4000", 1000),
        ("-4000", -1000),
        ("99999", None),
        ("urgent", None),
        ("1.5", None),
        ("--1", None),
        ("٣", None),
        ("", None),
    ],
)
def test_a_priority_is_a_number_or_a_name_or_not_there(said: str, priority: int | None) -> None:
    trust = Trust(TrustSettings(priority=("header:p",)))
    assert trust.caller({"p": said}).priority == priority


@pytest.mark.parametrize("said", ["0", "-5", "nan", "inf", "soon", "1e9", ""])
def test_an_objective_that_makes_no_sense_is_none(said: str) -> None:
    trust = Trust(TrustSettings(ttft_objective_ms=("header:o",)))
    assert trust.caller({"o": said}).ttft_objective is None


def test_long_names_stay_different() -> None:
    trust = Trust(TrustSettings(tenant=("header:t",)))
    names = {trust.caller({"t": "x" * 5000 + end}).tenant for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 256 for name in names)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(header=st.text(max_size=20), claims=st.dictionaries(st.sampled_from("ab"), JSON, max_size=2))
def test_whatever_is_said_gives_a_caller(header: str, claims: dict[str, object]) -> None:
    sources = ("header:h", "claim:a.b", "claim:b", "certificate")
    trust = Trust(TrustSettings(tenant=sources, priority=sources, ttft_objective_ms=sources))
    caller = trust.caller(asked({"h": header}, claims=claims))
    assert caller.priority is None or -1000 <= caller.priority <= 1000
    assert caller.ttft_objective is None or 0 < caller.ttft_objective <= 3600
    assert len(caller.tenant) <= 256
