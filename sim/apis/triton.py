"""Triton in front of TensorRT-LLM: generate, generate_stream, and infer with JSON or binary tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ext_proc.protocols import tensors
from sim.apis.api import JSON_TYPE, Api, ApiError, Call, Text, dumps, event, json_object, length, limit
from sim.capacity import TOKENS_PER_BLOCK
from sim.prompt import Prompt, from_text, from_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sim.apis.api import Incoming

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

ENSEMBLE = "ensemble"
"""The other name of the model: TensorRT-LLM's usual one for tokenizer, engine and detokenizer together."""


def read_generate(incoming: Incoming) -> Call:
    """A text to go on with. Raises ApiError with what Triton would answer."""
    return _call(incoming, json_object(incoming.body), stream=False)


def read_generate_stream(incoming: Incoming) -> Call:
    """A text to go on with in events. Raises ApiError with what Triton would answer."""
    return _call(incoming, json_object(incoming.body), stream=True)


def read_infer(incoming: Incoming) -> Call:
    """Tensors, some of them perhaps behind the JSON. Raises ApiError with what Triton would answer."""
    announced = incoming.headers.get(JSON_LENGTH_HEADER.lower(), "")
    split = int(announced) if announced.isdigit() else len(incoming.body)
    fields = json_object(incoming.body[:split])
    found: dict[str, object] = {}
    at = split
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(tensor, dict) for tensor in inputs):
        raise ApiError(400, "inputs must be a list of tensors")
    for tensor in inputs:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            found[tensor["name"]] = tensor.get("data")
            continue
        found[tensor["name"]] = tensors.decode(tensor.get("datatype"), incoming.body[at : at + size])
        at += size
    return _call(incoming, found, stream=False, asked=fields)


def error(found: ApiError) -> bytes:
    """A refusal as Triton words it."""
    return dumps({"error": str(found)})


def _call(
    incoming: Incoming, values: Mapping[str, Any], *, stream: bool, asked: Mapping[str, Any] | None = None
) -> Call:
    if incoming.named not in (incoming.model, ENSEMBLE):
        raise ApiError(404, f"Request for unknown model: '{incoming.named}' is not found")
    text, ids = _one(values.get("text_input")), values.get("input_ids")
    prompt: Prompt
    if isinstance(text, bytes):
        prompt = Prompt(text)
    elif isinstance(text, str):
        prompt = from_text(text)
    elif ids is not None:
        prompt = from_tokens(list(_row(ids)))
    else:
        raise ApiError(400, "expected input tensor 'text_input'")
    limits = {name: _one(values.get(name)) for name in tensors.LIMIT_NAMES}
    allowed = limit(limits, tensors.LIMIT_NAMES)
    return Call(
        model=incoming.named,
        prompt=prompt,
        output_tokens=length(allowed),
        limited=allowed is not None,
        stream=stream,
        more={"asked": asked},
    )


def _row(value: Any) -> Any:
    while isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    return value


def _one(value: Any) -> Any:
    row = _row(value)
    return row[0] if not isinstance(row, (str, bytes, int, type(None))) and len(row) else row


class Generated:
    """What `generate` answers: the output tensors as JSON's own values."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:  # noqa: ARG002
        self._text = Text(call)
        self._head = {"model_name": call.model, "model_version": "1"}

    def chunk(self, start: int, end: int) -> bytes:
        """A part of the text."""
        return event(self._head | {"text_output": self._text.part(start, end)})

    def end(self, cached_tokens: int) -> bytes:
        """An empty part, with how much of the cache was used."""
        return event(self._head | {"text_output": "", "kv_cache_reused_blocks": _reused(cached_tokens)})

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The whole text."""
        found = {"text_output": self._text.whole, "kv_cache_reused_blocks": _reused(cached_tokens)}
        return dumps(self._head | found), {"Content-Type": JSON_TYPE}


class Inferred:
    """What `infer` answers: output tensors, in JSON or behind it as the client asked."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:  # noqa: ARG002
        self._text = Text(call)
        self._asked = call.more["asked"]
        self._head = {"model_name": call.model, "model_version": "1"}
        if isinstance(self._asked.get("id"), str):
            self._head["id"] = self._asked["id"]

    def chunk(self, start: int, end: int) -> bytes:  # noqa: ARG002
        """Nothing: it is never streamed over HTTP."""
        return b""

    def end(self, cached_tokens: int) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The tensors."""
        text, reused = self._text.whole, _reused(cached_tokens)
        raw = {
            "text_output": len(text).to_bytes(4, "little") + text.encode(),
            "kv_cache_reused_blocks": reused.to_bytes(4, "little"),
        }
        outputs: list[dict[str, Any]] = [
            {"name": "text_output", "datatype": "BYTES", "shape": [1, 1], "data": [text]},
            {"name": "kv_cache_reused_blocks", "datatype": "INT32", "shape": [1, 1], "data": [reused]},
        ]
        tail = b""
        for output in outputs:
            if self._binary(output["name"]):
                del output["data"]
                output["parameters"] = {"binary_data_size": len(raw[output["name"]])}
                tail += raw[output["name"]]
        head = dumps(self._head | {"outputs": outputs})
        if not tail:
            return head, {"Content-Type": JSON_TYPE}
        headers = {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(len(head))}
        return head + tail, headers

    def _binary(self, name: str) -> bool:
        for output in self._asked.get("outputs") or ():
            if output.get("name") == name:
                return bool((output.get("parameters") or {}).get("binary_data"))
        return bool((self._asked.get("parameters") or {}).get("binary_data_output"))


def _reused(cached_tokens: int) -> int:
    return cached_tokens // TOKENS_PER_BLOCK


GENERATE = Api(read_generate, Generated, error)
GENERATE_STREAM = Api(read_generate_stream, Generated, error)
INFER = Api(read_infer, Inferred, error)
