from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.protocols import Call, tensors
from fleet.errors import UnreadableRequestError
from tests.ext_proc.protocols.reading import READING

if TYPE_CHECKING:
    from ext_proc.request import Prompt

CALL = Call("/", {}, b"", READING)


def prompt_of(values: dict[str, Any], parameters: dict[str, Any] | None = None) -> Prompt:
    return tensors.prompt_of(CALL, "m", values, parameters or {})


def text_tensor(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_decodes_texts_and_the_beginning_of_one_that_was_cut() -> None:
    raw = text_tensor(b"one", b"two")
    assert tensors.decode("BYTES", raw) == [b"one", b"two"]
    assert tensors.decode("BYTES", raw[:-1]) == [b"one", b"tw"]
    assert tensors.decode("BYTES", raw[:9]) == [b"one"]
    assert tensors.decode("BYTES", b"") == []


@pytest.mark.parametrize(("datatype", "size"), [("INT32", 4), ("UINT32", 4), ("INT64", 8), ("INT16", 2)])
def test_decodes_integers_and_leaves_out_the_one_that_was_cut(datatype: str, size: int) -> None:
    raw = b"".join(n.to_bytes(size, "little") for n in (1, 2, 300))
    assert list(tensors.decode(datatype, raw) or ()) == [1, 2, 300]
    assert list(tensors.decode(datatype, raw[:-1]) or ()) == [1, 2]


def test_leaves_what_is_no_prompt_undecoded() -> None:
    assert tensors.decode("FP32", b"\0\0\0\0") is None
    assert tensors.decode(["BYTES"], b"") is None


def test_ids_are_the_same_prompt_in_json_and_in_any_width() -> None:
    texts = {
        prompt_of({"input_ids": [[1, 2, 300]]}).text,
        prompt_of({"input_ids": [1, 2, 300]}).text,
        *(
            prompt_of(
                {"input_ids": tensors.decode(t, b"".join(n.to_bytes(s, "little") for n in (1, 2, 300)))}
            ).text
            for t, s in (("INT32", 4), ("INT64", 8), ("UINT32", 4))
        ),
    }
    assert texts == {b"\1\0\0\0\2\0\0\0\x2c\1\0\0"}


def test_padding_behind_the_ids_is_not_prompt() -> None:
    found = prompt_of({"input_ids": [[5, 6, 0, 0]], "input_lengths": [[2]]})
    assert (found.text, found.tokens) == (b"\5\0\0\0\6\0\0\0", 2)


def test_reads_limits_streaming_and_adapter_from_tensors_or_parameters() -> None:
    values = {"text_input": [b"hi"], "request_output_len": [[7]], "streaming": [[True]], "lora_task_id": [3]}
    found = prompt_of(values)
    assert (found.text, found.output_tokens, found.streamed, found.lora) == (b"hi", 7, True, "3")
    found = prompt_of({"text_input": "hi"}, {"max_tokens": 7, "sequence_id": 4})
    assert (found.output_tokens, found.streamed, found.session, found.lora) == (7, False, "4", "")


@pytest.mark.parametrize(
    "values",
    [{}, {"text_input": ""}, {"text_input": []}, {"input_ids": []}, {"text_input": 5}, {"other": "x"}],
)
def test_says_that_there_is_no_prompt(values: dict[str, Any]) -> None:
    with pytest.raises(UnreadableRequestError) as caught:
        prompt_of(values)
    assert caught.value.reason == "no-input"


@given(st.sampled_from(["BYTES", "INT32", "INT64", "BOOL", "UINT8", "FP16"]), st.binary(max_size=64))
def test_any_bytes_decode(datatype: str, raw: bytes) -> None:
    found = tensors.decode(datatype, raw)
    assert found is None or len(found) <= len(raw)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(sorted(tensors.NAMES)), VALUE),
    st.dictionaries(st.text(max_size=3), VALUE),
)
def test_any_values_are_a_prompt_or_unreadable(values: dict[str, Any], parameters: dict[str, Any]) -> None:
    try:
        found = prompt_of(values, parameters)
    except UnreadableRequestError:
        return
    assert found.text
