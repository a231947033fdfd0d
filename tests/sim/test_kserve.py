from __future__ import annotations

from typing import Any

import pytest

from sim import kserve_pb2 as pb
from sim.kserve import DEFAULT_ANSWER_TOKENS, Answer, KserveError, config, metadata, parse
from sim.prompt import from_text, from_tokens


def asked(*tensors: tuple[str, str, bytes], **fields: Any) -> pb.ModelInferRequest:
    """A request with these tensors (name, datatype, bytes) as raw contents."""
    request = pb.ModelInferRequest(model_name="m", **fields)
    for name, datatype, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        request.raw_input_contents.append(raw)
    return request


def sized(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


TEXT = ("text_input", "BYTES", sized(b"hello there"))


def test_text_is_read_from_raw_and_from_typed_contents_alike() -> None:
    typed = pb.ModelInferRequest(model_name="m", id="7")
    typed.inputs.add(name="text_input", datatype="BYTES").contents.bytes_contents.append(b"hello there")
    typed.inputs.add(name="max_tokens", datatype="INT32").contents.int_contents.append(5)
    typed.inputs.add(name="stream", datatype="BOOL").contents.bool_contents.append(True)
    raw = asked(TEXT, ("max_tokens", "INT32", b"\5\0\0\0"), ("stream", "BOOL", b"\1"), id="7")
    call = parse(typed, "m")
    assert call == parse(raw, "m")
    assert call.prompt == from_text("hello there")
    assert (call.id, call.output_tokens, call.stream) == ("7", 5, True)


def test_token_ids_and_the_limits_other_name_are_understood() -> None:
    ids = ("input_ids", "INT32", b"\1\0\0\0\2\0\0\0")
    call = parse(asked(ids, ("request_output_len", "INT32", b"\3\0\0\0")), "m")
    assert call.prompt == from_tokens([1, 2])
    assert call.output_tokens == 3
    assert parse(asked(ids), "m").output_tokens == DEFAULT_ANSWER_TOKENS


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (pb.ModelInferRequest(model_name="other"), "NOT_FOUND"),
        (asked(), "INVALID_ARGUMENT"),
        (asked(("text_input", "BYTES", b"\xff\0\0\0short")), "INVALID_ARGUMENT"),
        (asked(("text_input", "FP32", sized(b"hello"))), "INVALID_ARGUMENT"),
        (asked(("input_ids", "FP32", b"\0\0\0\0")), "INVALID_ARGUMENT"),
        (asked(("input_ids", "INT32", b"\xff\xff\xff\xff")), "INVALID_ARGUMENT"),
        (asked(TEXT, ("max_tokens", "INT32", b"\0\0\0\0")), "INVALID_ARGUMENT"),
    ],
)
def test_refuses_with_tritons_status(request_: pb.ModelInferRequest, status: str) -> None:
    with pytest.raises(KserveError) as refused:
        parse(request_, "m")
    assert refused.value.status == status


def test_an_answers_parts_together_are_the_whole() -> None:
    call = parse(asked(TEXT, ("max_tokens", "INT32", b"\5\0\0\0")), "m")
    answer = Answer(call)
    whole = answer.part(0, 5, 32, final=True)
    parts = [answer.part(0, 2, 32, final=False), answer.part(2, 5, 32, final=False)]
    (raw,) = whole.raw_output_contents
    assert raw == sized(b"".join(part.raw_output_contents[0][4:] for part in parts))
    assert whole.parameters["triton_final_response"].bool_param
    assert whole.parameters["cached_tokens"].int64_param == 32
    empty = answer.empty_final(32)
    assert empty.parameters["triton_final_response"].bool_param
    assert not empty.outputs


def test_says_what_the_model_takes_and_gives() -> None:
    assert config("m").model_transaction_policy.decoupled
    assert [tensor.name for tensor in config("m").input] == [tensor.name for tensor in metadata("m").inputs]
    assert metadata("m").name == "m"
