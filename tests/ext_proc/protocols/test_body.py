from __future__ import annotations

import gzip
import json
import zlib

import pytest

from ext_proc.protocols import body
from fleet.errors import UnreadableRequestError

TEXT = json.dumps({"messages": [{"role": "user", "content": "word " * 50_000}]}).encode()


def test_a_plain_body_is_read_up_to_the_cap() -> None:
    assert body.opened(TEXT, "", 1 << 20) == (TEXT, len(TEXT), True)
    assert body.opened(TEXT, "Identity", 1000) == (TEXT[:1000], 1000, False)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(TEXT)), ("X-GZIP", gzip.compress(TEXT)), ("deflate", zlib.compress(TEXT))],
)
def test_a_packed_body_is_unpacked_up_to_the_cap(encoding: str, packed: bytes) -> None:
    assert body.opened(packed, encoding, 1 << 20) == (TEXT, len(packed), True)
    capped = body.opened(packed, encoding, 1000)
    assert capped.data == TEXT[:1000]
    assert not capped.whole


def test_a_bomb_is_opened_no_further_than_the_cap() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    found = body.opened(bomb, "gzip", 10_000)
    assert (len(found.data), found.whole) == (10_000, False)
    assert found.wire_bytes < len(bomb)


def test_a_packed_body_cut_anywhere_yields_its_beginning() -> None:
    packed = gzip.compress(TEXT)
    for cut in range(1, len(packed), 7):
        found = body.opened(packed[:cut], "gzip", 1 << 20)
        assert TEXT.startswith(found.data)
        assert found.wire_bytes == cut


def test_a_packed_body_with_damage_in_it_yields_what_came_before() -> None:
    noise = bytes(n * 7919 % 251 for n in range(300_000))
    packed = bytearray(gzip.compress(noise, 1))
    packed[200_000:200_100] = b"\xff" * 100
    found = body.opened(bytes(packed), "gzip", 1 << 20)
    assert noise.startswith(found.data[:100_000])
    assert len(found.data) > 100_000


@pytest.mark.parametrize(
    ("data", "encoding", "why"),
    [
        (b"{}", "gzip", "bad-compression"),
        (b"{}", "br", "unknown-compression"),
        (b"{}", "gzip, gzip", "unknown-compression"),
    ],
)
def test_says_why_a_body_cannot_be_unpacked(data: bytes, encoding: str, why: str) -> None:
    with pytest.raises(UnreadableRequestError) as caught:
        body.opened(data, encoding, 1000)
    assert caught.value.reason == why


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b'"",', b'{"a":[1,2]},', b'{ "a" : 1 },'])
def test_of_dense_structure_only_the_beginning_is_read(unit: bytes) -> None:
    data = b'{"a":[' + unit * ((4 << 20) // len(unit)) + b"]}"
    found = body.json_object(data)["a"]
    assert 0 < len(found) <= body.VALUES_MAX + body._LOOK_BYTES
    assert len(found) < data.count(unit)


@pytest.mark.parametrize(
    "text", ["a[0], {b}, " * 300_000, 'say "[1,2]" \\ ' * 200_000, "\\" * 1_000_001 + '"[' * 300_000]
)
def test_what_texts_hold_is_no_structure(text: str) -> None:
    data = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    assert body.json_object(data)["messages"][0]["content"] == text


def test_a_long_list_of_token_ids_is_read_in_part() -> None:
    data = json.dumps({"prompt": list(range(1_000_000))}).encode()
    found = body.json_object(data)["prompt"]
    assert found[:-1] == list(range(len(found) - 1))  # the last may be cut
    assert body.VALUES_MAX <= len(found) < 1_000_000
