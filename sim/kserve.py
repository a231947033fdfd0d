"""KServe's v2 inference protocol as Triton's TensorRT-LLM models speak it: messages in, messages out, no I/O.

Tensors are those of the TensorRT-LLM ensemble: `text_input` or `input_ids`, `max_tokens` or
`request_output_len`, `stream`; and `text_output`. An answer carries one parameter that no real engine has:
`cached_tokens`, how much of the prompt was in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.errors import KvpilotError
from sim import kserve_pb2 as pb
from sim.prompt import BYTES_PER_TOKEN, MAX_ANSWER_TOKENS, Prompt, answer_text, from_bytes, from_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_ANSWER_TOKENS = 64
"""Length of an answer for which the client set no limit."""

FINAL = "triton_final_response"
WANTS_EMPTY_FINAL = "triton_enable_empty_final_response"
CACHED_TOKENS = "cached_tokens"

_WIDTHS = {"INT32": (4, True), "UINT32": (4, False), "INT64": (8, True), "UINT64": (8, False)}
"""Bytes of one element, and whether it has a sign."""


class KserveError(KvpilotError):
    """A refusal. `status` is the name of a gRPC status code."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed request."""

    model: str
    id: str
    prompt: Prompt
    output_tokens: int
    stream: bool  # an answer per chunk of tokens, not one
    wants_empty_final: bool  # and a last one without tokens, to tell that it was the last


def parse(request: pb.ModelInferRequest, model: str) -> Call:
    """A request for the engine that serves `model`. Raises KserveError with what Triton would say."""
    if request.model_name != model:
        raise KserveError("NOT_FOUND", f"Request for unknown model: '{request.model_name}' is not found")
    tensors = dict(_tensors(request))
    limit = _integers(tensors.get("max_tokens") or tensors.get("request_output_len"))
    if limit and limit[0] < 1:
        raise KserveError("INVALID_ARGUMENT", "max_tokens must be at least 1")
    return Call(
        model=model,
        id=request.id,
        prompt=_prompt(tensors),
        output_tokens=min(limit[0] if limit else DEFAULT_ANSWER_TOKENS, MAX_ANSWER_TOKENS),
        stream=_flag(tensors.get("stream") or tensors.get("streaming")),
        wants_empty_final=request.parameters[WANTS_EMPTY_FINAL].bool_param,
    )


class Answer:
    """The answer to one call, whole or in chunks of tokens; filler, always the same for a prompt."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._text = answer_text(call.prompt, call.output_tokens)
        self.blocks = call.prompt.blocks(self._text.encode())

    def part(self, start: int, end: int, cached_tokens: int, *, final: bool) -> pb.ModelInferResponse:
        """The tokens from `start` up to `end`."""
        text = self._text[start * BYTES_PER_TOKEN : end * BYTES_PER_TOKEN].encode()
        response = self._response(cached_tokens, final=final)
        response.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
        response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        return response

    def empty_final(self, cached_tokens: int) -> pb.ModelInferResponse:
        """No tokens, and none will follow."""
        return self._response(cached_tokens, final=True)

    def _response(self, cached_tokens: int, *, final: bool) -> pb.ModelInferResponse:
        call = self._call
        response = pb.ModelInferResponse(model_name=call.model, model_version="1", id=call.id)
        response.parameters[FINAL].bool_param = final
        response.parameters[CACHED_TOKENS].int64_param = cached_tokens
        return response


def config(model: str) -> pb.ModelConfig:
    """What the model is, as Triton tells it."""
    made = pb.ModelConfig(name=model, max_batch_size=1, backend="tensorrtllm")
    made.model_transaction_policy.decoupled = True
    for name, kind, optional in (
        ("text_input", pb.TYPE_STRING, False),
        ("max_tokens", pb.TYPE_INT32, False),
        ("stream", pb.TYPE_BOOL, True),
    ):
        made.input.add(name=name, data_type=kind, dims=[1], optional=optional)
    made.output.add(name="text_output", data_type=pb.TYPE_STRING, dims=[1])
    return made


def metadata(model: str) -> pb.ModelMetadataResponse:
    """The same, as KServe tells it."""
    made = pb.ModelMetadataResponse(name=model, versions=["1"], platform="tensorrtllm")
    for name, kind in (("text_input", "BYTES"), ("max_tokens", "INT32"), ("stream", "BOOL")):
        made.inputs.add(name=name, datatype=kind, shape=[-1, 1])
    made.outputs.add(name="text_output", datatype="BYTES", shape=[-1, 1])
    return made


def _tensors(request: pb.ModelInferRequest) -> Iterator[tuple[str, tuple[pb.InferTensor, bytes]]]:
    """Each input by its name, with its bytes where those lie apart."""
    raw = iter(request.raw_input_contents)
    for tensor in request.inputs:
        yield tensor.name, (tensor, b"" if tensor.HasField("contents") else next(raw, b""))


def _prompt(tensors: dict[str, tuple[pb.InferTensor, bytes]]) -> Prompt:
    if text := tensors.get("text_input"):
        return from_bytes(_text(*text))
    if tokens := _integers(tensors.get("input_ids")):
        try:
            return from_tokens(tokens)
        except ValueError as error:
            raise KserveError("INVALID_ARGUMENT", str(error)) from error
    raise KserveError("INVALID_ARGUMENT", "expected an input text_input or input_ids")


def _text(tensor: pb.InferTensor, raw: bytes) -> bytes:
    """The first element of a BYTES tensor."""
    if tensor.contents.bytes_contents:
        return tensor.contents.bytes_contents[0]
    end = 4 + int.from_bytes(raw[:4], "little")
    if tensor.datatype != "BYTES" or not 4 <= end <= len(raw):
        raise KserveError("INVALID_ARGUMENT", f"{tensor.name}: expected BYTES, each after its length")
    return raw[4:end]


def _integers(found: tuple[pb.InferTensor, bytes] | None) -> list[int]:
    if found is None:
        return []
    tensor, raw = found
    held = tensor.contents
    if tensor.HasField("contents"):
        return [*held.int_contents, *held.int64_contents, *held.uint_contents, *held.uint64_contents]
    if tensor.datatype not in _WIDTHS:
        raise KserveError("INVALID_ARGUMENT", f"{tensor.name}: expected one of {', '.join(_WIDTHS)}")
    width, signed = _WIDTHS[tensor.datatype]
    return [
        int.from_bytes(raw[at : at + width], "little", signed=signed)
        for at in range(0, len(raw) - width + 1, width)
    ]


def _flag(found: tuple[pb.InferTensor, bytes] | None) -> bool:
    if found is None:
        return False
    tensor, raw = found
    return any(tensor.contents.bool_contents) or any(raw)
