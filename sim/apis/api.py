"""What every protocol of an emulated engine is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import jiter

from fleet.errors import KvpilotError
from sim.prompt import BYTES_PER_TOKEN, MAX_ANSWER_TOKENS, Prompt, answer_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

DEFAULT_ANSWER_TOKENS = 64
"""Length of an answer for which the client set no limit; it then ends by itself (`stop`)."""

JSON_TYPE = "application/json"


class ApiError(KvpilotError):
    """An answer other than 200; each protocol has its own words for it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    @property
    def kind(self) -> str:
        """What OpenAI and Anthropic call it."""
        return "invalid_request_error" if self.status < 500 else "server_error"

    def body(self) -> bytes:
        """The JSON error object that OpenAI clients read."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as the server hands it on. Header names are lower case; `named` is the model in the path."""

    body: bytes
    model: str  # that the engine serves
    headers: Mapping[str, str] = field(default_factory=dict)
    named: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed request. `more` is what its own protocol needs to answer."""

    model: str
    prompt: Prompt
    output_tokens: int
    limited: bool  # the client set the limit, so the answer ends for its length
    stream: bool
    more: Mapping[str, Any] = field(default_factory=dict)
    cacheable: bool = True


class Answer(Protocol):
    """What an engine says to one call: events as tokens come, or one body."""

    def chunk(self, start: int, end: int) -> bytes:
        """Events with the tokens from `start` up to `end`, in a stream."""

    def end(self, cached_tokens: int) -> bytes:
        """What follows the last token in a stream."""

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The whole answer, not streamed, and headers for it, its content type among them."""


@dataclass(frozen=True, slots=True)
class Api:
    """One protocol. `answer` takes a unique id without prefix, and Unix time in seconds."""

    read: Callable[[Incoming], Call]
    answer: Callable[[Call, str, int], Answer]
    error: Callable[[ApiError], bytes] = ApiError.body


class Text:
    """The filler that answers a call."""

    def __init__(self, call: Call) -> None:
        self.whole = answer_text(call.prompt, call.output_tokens)

    def part(self, start: int, end: int) -> str:
        """The tokens from `start` up to `end`."""
        return self.whole[start * BYTES_PER_TOKEN : end * BYTES_PER_TOKEN]


def blocks(call: Call) -> Sequence[int]:
    """Names of the blocks that prompt and answer fill in the engine's cache."""
    if not call.cacheable:
        return ()
    return call.prompt.blocks(answer_text(call.prompt, call.output_tokens).encode())


def json_object(body: bytes) -> dict[str, Any]:
    """The body's fields. Raises ApiError."""
    try:
        fields = jiter.from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object")
    return fields


def check_model(fields: Mapping[str, Any], model: str) -> None:
    """Raises ApiError where the client names another model than the engine's."""
    if fields.get("model") not in (None, model):
        raise ApiError(404, f"the model {fields['model']!r} does not exist", "model", "model_not_found")


def limit(fields: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """The client's limit of the answer in tokens, None where it set none. Raises ApiError."""
    for name in names:
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ApiError(400, f"{name} must be an integer of at least 1", name)
        return value
    return None


def length(limit: int | None) -> int:
    """How many tokens the answer has."""
    return min(DEFAULT_ANSWER_TOKENS if limit is None else limit, MAX_ANSWER_TOKENS)


def dumps(message: Mapping[str, Any]) -> bytes:
    """Compact JSON."""
    return json.dumps(message, separators=(",", ":")).encode()


def event(message: Mapping[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dumps(message) + b"\n\n"
