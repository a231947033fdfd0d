from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from ext_proc.protocols import Call, Reading, find
from ext_proc.protocols.call import UNFORESEEN
from ext_proc.protocols.kserve_grpc import FIELDS_MAX
from fleet.errors import UnreadableRequestError

if TYPE_CHECKING:
    from ext_proc.request import Prompt

PATH = "/inference.GRPCInferenceService/ModelInfer"
READING = Reading(bytes_max=8 << 20, media_bytes=2048, session_keys=(("parameters", "sequence_id"),))


def read(body: bytes, encoding: str = "", reading: Reading = READING, path: str = PATH) -> Prompt:
    protocol = find("POST", path)
    assert protocol is not None
    return protocol.parse(Call(path, {"grpc-encoding": encoding}, body, reading))


def reason(body: bytes, encoding: str = "") -> str:
    """Why it cannot be read; '' where it can."""
    try:
        read(body, encoding)
    except UnreadableRequestError as error:
        return error.reason
    return ""


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def tensor(name: str, value: Any) -> Any:
    array = np.asarray(value)
    kind = {"O": "BYTES", "b": "BOOL", "i": f"INT{array.itemsize * 8}"}[array.dtype.kind]
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def text_tensor(text: str) -> Any:
    return tensor("text_input", np.array([[text.encode()]], dtype=object))


def asked(*tensors: Any, **fields: Any) -> Any:
    """The message that Triton's own client would send."""
    request = service_pb2.ModelInferRequest(model_name="ensemble", **fields)
    for each in tensors:
        request.inputs.append(each._get_tensor())
        request.raw_input_contents.append(each._get_content())
    return request


def body_of(*tensors: Any, **fields: Any) -> bytes:
    return framed(asked(*tensors, **fields).SerializeToString())


LIMIT = tensor("max_tokens", np.array([[7]], dtype=np.int32))


def test_reads_a_request_of_the_real_client() -> None:
    prompt = read(body_of(text_tensor("hello there"), LIMIT, tensor("stream", np.array([[True]]))))
    assert prompt.text == b"hello there"
    assert (prompt.model, prompt.output_tokens, prompt.streamed) == ("ensemble", 7, False)


def test_the_same_text_by_http_is_the_same_prompt() -> None:
    text = "some words, über alles: 例 " * 50
    json_body = json.dumps({"text_input": text, "max_tokens": 7}).encode()
    http = read(json_body, path="/v2/models/ensemble/generate")
    grpc = read(body_of(text_tensor(text), LIMIT))
    assert (grpc.model, grpc.text, grpc.output_tokens) == (http.model, http.text, http.output_tokens)


def test_order_does_not_matter_and_unknown_tensors_are_passed_over() -> None:
    odd = tensor("temperature_of_tea", np.array([[1, 2, 3]], dtype=np.int64))
    ordered = read(body_of(text_tensor("hello"), LIMIT))
    shuffled = read(body_of(odd, LIMIT, text_tensor("hello"), odd))
    assert (shuffled.text, shuffled.output_tokens) == (ordered.text, ordered.output_tokens)


def test_typed_contents_are_read_like_raw_ones() -> None:
    request = service_pb2.ModelInferRequest(model_name="ensemble")
    request.inputs.add(name="text_input", datatype="BYTES").contents.bytes_contents.append(b"hello there")
    request.inputs.add(name="max_tokens", datatype="INT32").contents.int_contents.append(7)
    prompt = read(framed(request.SerializeToString()))
    assert (prompt.text, prompt.output_tokens) == (b"hello there", 7)


def test_token_ids_are_read_raw_and_typed_alike() -> None:
    ids = [0, 1, 127, 128, 16_383, 16_384, 151_643, 2**31 - 1] * 500
    raw = read(body_of(tensor("input_ids", np.array([ids], dtype=np.int32))))
    assert raw.tokens == len(ids)
    for kind in ("int_contents", "int64_contents", "uint_contents", "uint64_contents"):
        request = service_pb2.ModelInferRequest(model_name="ensemble")
        getattr(request.inputs.add(name="input_ids", datatype="INT32").contents, kind).extend(ids)
        typed = read(framed(request.SerializeToString()))
        assert (typed.text, typed.tokens) == (raw.text, raw.tokens)


def test_negative_numbers_are_no_token_ids() -> None:
    request = service_pb2.ModelInferRequest(model_name="ensemble")
    request.inputs.add(name="input_ids", datatype="INT32").contents.int64_contents.extend([1, -1])
    assert reason(framed(request.SerializeToString())) == "bad-token-ids"


@pytest.mark.parametrize(
    ("kind", "value", "session"),
    [("int64_param", 42, "42"), ("string_param", "chat-7", "chat-7"), ("int64_param", 0, "")],
)
def test_a_sequence_id_is_a_session(kind: str, value: Any, session: str) -> None:
    request = asked(text_tensor("hello"))
    setattr(request.parameters["sequence_id"], kind, value)
    request.parameters["priority"].uint64_param = 1
    request.parameters["wait"].double_param = 0.5
    request.parameters["sequence_start"].bool_param = True
    assert read(framed(request.SerializeToString())).session == session


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_message_is_unpacked_up_to_the_cap(encoding: str) -> None:
    message = asked(text_tensor("hello " * 100_000)).SerializeToString()
    packed = gzip.compress(message) if encoding == "gzip" else zlib.compress(message)
    body = framed(packed, compressed=True)
    assert read(body, encoding).text == b"hello " * 100_000
    small = Reading(bytes_max=4096, media_bytes=0)
    capped = read(body, encoding, small)
    assert 3000 < len(capped.text) < 4096
    assert capped.whole_bytes == len(body)
    assert reason(body) == "unknown-compression"
    assert reason(body, "snappy") == "unknown-compression"
    assert reason(framed(b"no gzip at all", compressed=True), "gzip") == "bad-compression"


def test_a_cut_message_yields_its_head_and_tells_how_long_it_would_have_been() -> None:
    text = "".join(f"word {n} " for n in range(20_000))
    body = body_of(text_tensor(text), LIMIT)
    for length in (1_000, len(body) // 2, len(body) - 1):
        prompt = read(body[:length])
        assert text.encode().startswith(prompt.text)
        assert length - 300 < len(prompt.text) <= length
        assert (prompt.read_bytes, prompt.whole_bytes) == (length, len(body))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no-grpc-message"),
        (b"\0\0\0\0", "no-grpc-message"),
        (b"\2\0\0\0\0", "no-grpc-message"),
        (framed(b""), "no-input"),
        (framed(b"\xff" * 50), "no-input"),
        (body_of(LIMIT), "no-input"),
        (body_of(tensor("input_ids", np.zeros((1, 0), dtype=np.int32))), "no-input"),
    ],
)
def test_what_is_no_request_has_a_reason(body: bytes, why: str) -> None:
    assert reason(body) == why


REAL = body_of(
    text_tensor("hello there, this is a prompt of some length"),
    LIMIT,
    tensor("input_ids", np.array([[1, 2, 3]], dtype=np.int32)),
    id="a",
)


@given(data=st.binary(max_size=400), flag=st.integers(0, 1))
@settings(max_examples=300)
def test_random_messages_are_read_or_refused(data: bytes, flag: int) -> None:
    assert reason(framed(data, compressed=bool(flag)), "gzip") != UNFORESEEN
    assert reason(data) != UNFORESEEN


@given(at=st.integers(0, len(REAL) - 1), bits=st.integers(1, 255), cut=st.integers(0, len(REAL)))
@settings(max_examples=500)
def test_damaged_and_cut_messages_are_read_or_refused(at: int, bits: int, cut: int) -> None:
    damaged = bytearray(REAL)
    damaged[at] ^= bits
    assert reason(bytes(damaged[:cut])) != UNFORESEEN


def test_hostile_structure_is_looked_at_only_so_far() -> None:
    # Every two bytes an empty input, parameter or typed element; then a prompt that nobody gets to.
    for unit in (b"\x2a\x00", b"\x22\x00", b"\x2a\x04\x2a\x02\x42\x00"):
        late = asked(text_tensor("hello")).SerializeToString()
        assert reason(framed(unit * FIELDS_MAX + late)) == "no-input"


def test_small_integers_in_masses_are_read_only_so_far() -> None:
    narrow, wide = (
        read(body_of(tensor("input_ids", np.ones((1, count), dtype=kind)))).tokens
        for count, kind in ((3 << 20, np.int8), (3 << 18, np.int32))
    )
    assert narrow == 1 << 20
    assert wide == 3 << 18
