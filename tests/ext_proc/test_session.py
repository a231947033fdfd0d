from __future__ import annotations

from typing import Any

import pytest

from ext_proc import session
from fleet.settings import PickerSettings

KEYS = [key.split(".") for key in PickerSettings().session_body_keys]
NAMES = ("x-session-id", "x-conversation-id")


def test_the_first_header_found_wins_over_later_ones_and_the_cookie() -> None:
    headers = {"x-conversation-id": "c", "cookie": "kvpilot_session=k"}
    assert session.from_headers(headers, NAMES, "kvpilot_session") == "c"
    assert session.from_headers({**headers, "x-session-id": "s"}, NAMES, "kvpilot_session") == "s"


def test_finds_the_cookie_among_others() -> None:
    headers = {"cookie": "a=1; kvpilot_session=abc=; b=2"}
    assert session.from_headers(headers, NAMES, "kvpilot_session") == "abc="
    assert session.from_headers(headers, NAMES, "") == ""
    assert session.from_headers({"cookie": "xkvpilot_session=1"}, NAMES, "kvpilot_session") == ""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"session_id": "a", "user": "u"}, "a"),
        ({"conversation": {"id": "conv"}}, "conv"),
        ({"conversation": "conv"}, "conv"),
        ({"conversation_params": {"conversation_id": "p"}}, "p"),
        ({"prompt_cache_key": "k", "metadata": {"session_id": "m"}}, "k"),
        ({"metadata": {"session_id": "m"}, "user": "u"}, "m"),
        ({"user": "u"}, "u"),
        ({"metadata": {"user_id": "a"}}, "a"),
        ({"parameters": {"sequence_id": 7}}, "7"),
        ({"parameters": {"sequence_id": "seven"}}, "seven"),
        ({"parameters": {"sequence_id": 0}}, ""),
        ({"session_id": -5, "metadata": [], "conversation": {"id": 7.5}, "user": 10**30}, ""),
        ({}, ""),
    ],
)
def test_finds_the_session_in_every_documented_place_of_a_body(body: dict[str, Any], found: str) -> None:
    assert session.from_body(body, KEYS) == found


def test_cuts_ids_that_are_too_long_to_remember() -> None:
    assert len(session.from_body({"user": "u" * 9999}, KEYS)) == session.LENGTH_MAX
    assert len(session.from_headers({"x-session-id": "s" * 9999}, NAMES, "")) == session.LENGTH_MAX


def test_remembers_where_the_latest_sessions_live_and_forgets_the_longest_idle() -> None:
    table = session.SessionTable(size=3)
    for n, name in enumerate("abca"):
        table.remember(name, f"endpoint-{n}", float(n))
    table.remember("d", "endpoint-9", 9.0)
    table.remember("", "nowhere", 9.0)
    homes = {name: table.home(name) for name in "abcd"}
    assert homes == {"a": "endpoint-3", "b": None, "c": "endpoint-2", "d": "endpoint-9"}
    table.expire(before=3.0)
    assert (table.home("a"), table.home("c"), table.home("d")) == (None, None, "endpoint-9")


def test_a_session_is_its_tenants_own() -> None:
    assert session.key("a", "s") != session.key("b", "s")
    assert session.key("", "a\ns") != session.key("a", "s")
    assert session.key("a", "") == ""
