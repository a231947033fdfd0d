from __future__ import annotations

import json
from typing import Any

import pytest

from ext_proc import protocols
from tests.ext_proc.protocols.reading import READING, parse, reason

TEXT = "What is a mesh? " * 40


def tensor(name: str, datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": [1, 1], "datatype": datatype, "data": data}


def binary(name: str, datatype: str, raw: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "shape": [1, 1],
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }


def binary_request(text: bytes) -> tuple[bytes, dict[str, str]]:
    raw = len(text).to_bytes(4, "little") + text
    limit = (9).to_bytes(4, "little")
    inputs = [
        binary("other", "FP32", b"\0" * 8),
        binary("text_input", "BYTES", raw),
        binary("max_tokens", "INT32", limit),
    ]
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"\0" * 8 + raw + limit, {"inference-header-content-length": str(len(head))}


def test_the_model_is_the_paths() -> None:
    for path, model in (
        ("/v2/models/llama/generate", "llama"),
        ("/x/v2/models/my%20model/versions/3/generate?y=1", "my model"),
    ):
        found = protocols.find("POST", path)
        assert found is not None
        assert found.parse(protocols.Call(path, {}, b'{"text_input":"a"}', READING)).model == model


def test_generate_is_read_with_its_parameters_and_streamed_by_its_path() -> None:
    body = {"text_input": TEXT, "max_tokens": 5, "stream": True, "parameters": {"sequence_id": 12}}
    whole, streamed = parse("generate", body), parse("generate_stream", body)
    assert (whole.text, whole.output_tokens, whole.session) == (TEXT.encode(), 5, "12")
    assert (whole.streamed, streamed.streamed) == (False, True)
    assert streamed.text == whole.text


def test_a_prompt_is_the_same_in_every_form() -> None:
    body, headers = binary_request(TEXT.encode())
    inputs = [tensor("text_input", "BYTES", [TEXT]), tensor("max_tokens", "INT32", [[9]])]
    found = [
        parse("infer", body, headers),
        parse("infer", {"inputs": inputs}),
        parse("infer", TEXT.encode(), {"inference-header-content-length": "0"}),
        parse("generate", {"text_input": TEXT}),
        parse("completions", {"prompt": TEXT}),
    ]
    assert {prompt.text for prompt in found} == {TEXT.encode()}
    assert [prompt.output_tokens for prompt in found[:2]] == [9, 9]


def test_binary_tensors_cut_anywhere_yield_the_head_of_the_prompt() -> None:
    body, headers = binary_request(TEXT.encode())
    start = body.index(TEXT.encode())
    for cut in range(len(body)):
        if cut > start:
            assert parse("infer", body[:cut], headers).text == TEXT.encode()[: cut - start]
        else:
            assert reason("infer", body[:cut], headers) in {"not-json", "no-input"}


@pytest.mark.parametrize("announced", ["x", "-1", "٣", "9" * 20, "1.5"])
def test_a_header_length_that_is_no_number_is_a_reason(announced: str) -> None:
    body, _ = binary_request(b"a")
    assert reason("infer", body, {"inference-header-content-length": announced}) == "bad-header-length"


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        5,
        [],
        [None],
        [{"name": ["text_input"]}],
        [{"name": "text_input", "parameters": {"binary_data_size": -4}, "datatype": "BYTES"}],
        [{"name": "text_input", "parameters": {"binary_data_size": 1 << 200}, "datatype": "BYTES"}],
        [{"name": "text_input", "parameters": 7, "data": None}],
    ],
)
def test_tensors_that_make_no_sense_are_a_reason(inputs: Any) -> None:
    assert reason("infer", {"inputs": inputs}) == "no-input"
