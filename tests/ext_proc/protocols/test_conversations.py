"""One conversation is one prompt whichever client sends it, and begins like its own earlier turns."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.ext_proc.protocols.conversations import IMAGE, SENT
from tests.ext_proc.protocols.reading import parse


@pytest.mark.parametrize(("protocol", "body"), SENT)
def test_all_clients_send_one_prompt(protocol: str, body: dict[str, Any]) -> None:
    first = parse(*SENT[0])
    assert parse(protocol, body).text == first.text
    assert parse(protocol, json.dumps(body, indent=3).encode()).text == first.text
    assert (
        parse(protocol, json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()).text
        == first.text
    )


@pytest.mark.parametrize(("protocol", "body"), SENT)
def test_every_turn_begins_with_the_bytes_of_the_one_before(protocol: str, body: dict[str, Any]) -> None:
    key = "input" if protocol == "responses" else "messages"
    before = b""
    for turns in range(1, len(body[key]) + 1):
        now = parse(protocol, {**body, key: body[key][:turns]}).text
        assert now.startswith(before)
        before = now


@pytest.mark.parametrize(("protocol", "body"), SENT)
def test_images_are_hashed_and_not_kept(protocol: str, body: dict[str, Any]) -> None:
    text = parse(protocol, body).text
    assert b"Kyiv" in text
    assert IMAGE[:64].encode() not in text


@pytest.mark.parametrize(("protocol", "body"), SENT)
def test_another_word_anywhere_is_another_prompt(protocol: str, body: dict[str, Any]) -> None:
    said = json.dumps(body)
    for word in ("kind", "weather here", "Kyiv", "call_1", "14 degrees", "mild", "of a city", IMAGE[:40]):
        assert word in said
        other = json.loads(said.replace(word, word[::-1]))
        assert parse(protocol, other).text != parse(protocol, body).text, word


@pytest.mark.parametrize(("protocol", "body"), SENT)
def test_a_body_cut_anywhere_yields_the_head_of_its_prompt(protocol: str, body: dict[str, Any]) -> None:
    whole = copy.deepcopy(body)
    whole.pop("tools")
    whole.pop("system", None)  # where they come behind the messages, a cut leaves them out
    key = "input" if protocol == "responses" else "messages"
    asked = next(n for n, said in enumerate(whole[key]) if said["role"] == "user")
    whole[key] = whole[key][asked:]
    whole[key][0]["content"][0]["text"] = "word " * 2_000
    data = json.dumps(whole).encode()
    prompt = parse(protocol, whole).text
    start = data.index(b"word ")
    for cut in range(start + 20, start + 10_000, 97):
        found = parse(protocol, data[:cut]).text
        assert prompt.startswith(found.rstrip(b"\x04"))
        assert len(found) >= cut - start
