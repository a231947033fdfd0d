"""Any bytes, by any protocol, are a prompt or unreadable for a known reason, and never anything else."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc import protocols
from ext_proc.protocols.call import UNFORESEEN
from tests.ext_proc.protocols.golden import REQUESTS
from tests.ext_proc.protocols.reading import parse, reason

NAMES = sorted(protocols.NAMES)
KNOWN = protocols.REASONS - {UNFORESEEN} | {""}

KEYS = st.sampled_from(
    [
        *("messages", "role", "content", "prompt", "input", "inputs", "text_input", "input_ids", "model"),
        *("tools", "user", "metadata", "type", "text", "name", "id", "data", "datatype", "parameters"),
        *("shape", "binary_data_size", "tool_calls", "function", "arguments", "image_url", "url", "source"),
        *("system", "instructions", "stream", "max_tokens", "prompt_token_ids", "lora_request"),
        *("session_id", "conversation", "detail"),
    ]
)
WORDS = st.sampled_from(
    [
        *("user", "assistant", "text", "image", "image_url", "input_text", "function_call", "message"),
        *("tool_use", "tool_result", "BYTES", "INT32", "text_input", "input_ids", "[[[[", "{"),
        "data:image/png;base64,QUJD",
    ]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | WORDS
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SHAPED = st.dictionaries(KEYS, VALUE, max_size=5).map(lambda found: json.dumps(found).encode())
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", ""]),
        "inference-header-content-length": st.integers(0, 99).map(str) | st.text(max_size=3),
    },
)


@given(st.sampled_from(NAMES), st.binary(max_size=80) | SHAPED, HEADERS, st.integers(0, 400))
def test_any_bytes_cut_anywhere(name: str, body: bytes, headers: dict[str, str], cut: int) -> None:
    assert reason(name, body[:cut], headers) in KNOWN


@given(st.sampled_from(NAMES), SHAPED)
def test_whatever_is_read_of_a_body_is_within_bounds(name: str, body: bytes) -> None:
    if reason(name, body):
        return
    found = parse(name, body)
    assert found.output_tokens is None or 0 <= found.output_tokens <= 1 << 20
    assert len(found.session) <= 256
    assert max(len(found.model), len(found.cache_salt), len(found.lora)) <= 512
    assert found.tokens is None or found.tokens * 4 == len(found.text)


@pytest.mark.parametrize("sent", REQUESTS)
def test_valid_bodies_cut_at_every_point(sent: str) -> None:
    protocol, body, headers = REQUESTS[sent]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    for cut in range(len(data)):
        assert reason(protocol, data[:cut], headers) in KNOWN
    packed = gzip.compress(data)
    for cut in range(len(packed)):
        assert reason(protocol, packed[:cut], headers | {"content-encoding": "gzip"}) in KNOWN


HOSTILE = {
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"messages":' * 10_000,
    "nested in messages": b'{"messages":[{"content":' + b"[" * 190 + b"]" * 190 + b"}]}",
    "nested in tools": b'{"messages":[{}],"tools":' + b"[" * 190 + b"]" * 190 + b"}",
    "nested ids": b'{"input_ids":' + b"[" * 190 + b"1" + b"]" * 190 + b"}",
    "nested arguments": b'{"messages":[{"tool_calls":[{"function":{"arguments":"' + b"[" * 5000 + b'"}}]}]}',
    "huge integer": b'{"prompt":[' + b"9" * 100_000 + b"]}",
    "large integer": b'{"prompt":[' + b"9" * 4000 + b'],"messages":[{"content":' + b"9" * 4000 + b"}]}",
    "large limit": b'{"prompt":"a","max_tokens":' + b"9" * 4000 + b"}",
    "huge float": b'{"prompt":"a","messages":[{"role":1e999,"content":-1e999}],"max_tokens":1e400}',
    "not a number": b'{"prompt":[NaN],"messages":[{"content":NaN}],"input":[NaN],"text_input":NaN}',
    "duplicate keys": b'{"prompt":"a","prompt":[1],"messages":[],"messages":[{"role":1,"role":2}]}',
    "invalid UTF-8": b'{"prompt":"\xff\xfe","messages":[{"content":"\xc0\x80"}]}',
    "cut UTF-8": '{"prompt":"é'.encode()[:-1],
    "lone surrogates": b'{"prompt":"\\ud800","messages":[{"content":"\\udfff\\ud800"}]}',
    "control characters": b'{"prompt":"\\u0001\\u0004","messages":[{"content":"\\u0000"}]}',
    "a byte order mark": b'\xef\xbb\xbf{"prompt":"a"}',
    "UTF-16": '{"prompt":"a"}'.encode("utf-16"),
    "nulls": b"\0" * 1000,
    "an object of everything": b'{"messages":{"a":1},"prompt":{},"input":{},"inputs":{},"text_input":{}}',
    "wrong messages": b'{"messages":[1,null,[],{"content":7},{"content":[[],7,{"type":{}}]}]}',
    "wrong tools": b'{"messages":[{}],"input":"a","tools":[1,{"function":2},{"type":[]},{"type":{}}]}',
    "wrong calls": b'{"messages":[{"tool_calls":[1,{"function":3},{"function":{"name":[]}}]}]}',
    "wrong blocks": b'{"messages":[{"content":[{"type":"tool_use"},{"type":"tool_result"}]}],"system":7}',
    "wrong items": b'{"input":[1,{"type":{}},{"type":"function_call"},{"type":"function_call_output"}]}',
    "many small parts": b'{"messages":[{"content":[' + b'{"type":"x"},' * 400_000 + b"{}]}]}",
    "many images": b'{"messages":[{"content":[' + b'{"type":"image","image":"a"},' * 200_000 + b"{}]}]}",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_bodies(name: str, body: bytes) -> None:
    assert reason(name, body) in KNOWN


SLOWEST_SECONDS = 0.05
"""Of CPU that one message may take, whatever it holds; the largest took 0.03."""


@pytest.mark.parametrize("name", NAMES)
def test_no_message_holds_up_the_others(name: str) -> None:
    dearest = max(HOSTILE.values(), key=lambda body: cpu_seconds(name, body))
    assert min(cpu_seconds(name, dearest) for _ in range(5)) < SLOWEST_SECONDS


def cpu_seconds(name: str, body: bytes) -> float:
    began = time.thread_time()
    reason(name, body)
    return time.thread_time() - began


@pytest.mark.parametrize("name", NAMES)
def test_no_body_makes_a_prompt_much_longer_than_itself(name: str) -> None:
    sent: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "image", "image": "a"}] * 9_000}]
    }
    sent["input"] = sent["messages"]
    body = json.dumps(sent).encode()
    if not reason(name, body):
        assert len(parse(name, body).text) < 3 * len(body)
