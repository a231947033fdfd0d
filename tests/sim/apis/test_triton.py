from __future__ import annotations

import json
from typing import Any

import pytest

from sim.apis.api import ApiError, Call, Incoming
from sim.apis.triton import GENERATE, GENERATE_STREAM, INFER, JSON_LENGTH_HEADER


def infer(fields: dict[str, Any], tail: bytes = b"", named: str = "ensemble") -> Call:
    head = json.dumps(fields).encode()
    return INFER.read(Incoming(head + tail, "m", {JSON_LENGTH_HEADER.lower(): str(len(head))}, named))


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], **fields}


def test_events_join_to_the_whole_text() -> None:
    body = json.dumps({"text_input": "hi", "max_tokens": 9}).encode()
    call = GENERATE_STREAM.read(Incoming(body, "m", named="m"))
    answer = GENERATE_STREAM.answer(call, "1f", 1)
    raw = (answer.chunk(0, 1) + answer.chunk(1, 9) + answer.end(0)).decode()
    said = "".join(
        json.loads(event.removeprefix("data: "))["text_output"] for event in raw.split("\n\n") if event
    )
    whole = GENERATE.answer(GENERATE.read(Incoming(body, "m", named="m")), "1f", 1).body(0)[0]
    assert said == json.loads(whole)["text_output"]


def test_a_prompt_is_the_same_as_json_and_as_bytes() -> None:
    binary = infer({"inputs": [tensor(parameters={"binary_data_size": 6})]}, b"\2\0\0\0hi")
    assert binary.prompt == infer({"inputs": [tensor(data=["hi"])]}).prompt
    assert binary.prompt.text == b"hi"


def test_outputs_are_binary_where_asked() -> None:
    asked = {"inputs": [tensor(data=["hi"])], "parameters": {"binary_data_output": True}, "id": "7"}
    body, headers = INFER.answer(infer(asked), "1f", 1).body(64)
    head = json.loads(body[: int(headers[JSON_LENGTH_HEADER])])
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert len(body) == int(headers[JSON_LENGTH_HEADER]) + sum(sizes)
    assert head["id"] == "7"
    plain, headers = INFER.answer(infer({"inputs": [tensor(data=["hi"])]}), "1f", 1).body(64)
    assert JSON_LENGTH_HEADER not in headers
    assert json.loads(plain)["outputs"][0]["data"][0].encode() in body


@pytest.mark.parametrize(
    "fields", [{}, {"inputs": []}, {"inputs": [5]}, {"inputs": [tensor(name="x", data=["a"])]}]
)
def test_refuses_in_tritons_words(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        infer(fields)
    assert json.loads(INFER.error(caught.value))["error"]


def test_knows_its_model_and_no_other() -> None:
    with pytest.raises(ApiError) as caught:
        infer({"inputs": [tensor(data=["a"])]}, named="other")
    assert caught.value.status == 404
