"""The OpenAI protocol as engines speak it: request bodies in, answers out, all of it bytes and no I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jiter

from fleet.errors import KvpilotError
from sim.prompt import (
    BYTES_PER_TOKEN,
    MAX_ANSWER_TOKENS,
    Prompt,
    answer_text,
    from_messages,
    from_text,
    from_tokens,
)

DEFAULT_ANSWER_TOKENS = 64
"""Length of an answer for which the client set no limit; it then ends by itself (`stop`)."""

DONE = b"data: [DONE]\n\n"


class ApiError(KvpilotError):
    """An answer other than 200, in OpenAI's words."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """The JSON error object that OpenAI clients read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


@dataclass(frozen=True, slots=True)
class Call:
    """One parsed request."""

    chat: bool
    model: str
    prompt: Prompt
    output_tokens: int
    limited: bool  # the client set the limit, so the answer ends for its length
    stream: bool
    include_usage: bool  # in a stream; other answers always carry it


def parse(body: bytes, *, chat: bool, model: str) -> Call:
    """A request body for the engine that serves `model`. Raises ApiError with what OpenAI would answer."""
    try:
        fields = jiter.from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object")
    if fields.get("model") not in (None, model):
        raise ApiError(404, f"the model {fields['model']!r} does not exist", "model", "model_not_found")
    if fields.get("n", 1) not in (None, 1):
        raise ApiError(400, "only one choice is supported", "n")
    limit = _limit(fields)
    options = fields.get("stream_options")
    return Call(
        chat=chat,
        model=model,
        prompt=_chat_prompt(fields) if chat else _plain_prompt(fields),
        output_tokens=min(DEFAULT_ANSWER_TOKENS if limit is None else limit, MAX_ANSWER_TOKENS),
        limited=limit is not None,
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _limit(fields: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ApiError(400, f"{name} must be an integer of at least 1", name)
        return value
    return None


def _chat_prompt(fields: dict[str, Any]) -> Prompt:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with at least one message", "messages")
    return from_messages(messages, fields.get("tools"))


def _plain_prompt(fields: dict[str, Any]) -> Prompt:
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return from_text(prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        try:
            return from_tokens(prompt)
        except ValueError as error:
            raise ApiError(400, str(error), "prompt") from error
    raise ApiError(400, "prompt must be one string or one list of token ids", "prompt")


class Answer:
    """The answer to one call, whole or in chunks of tokens; filler, always the same for a prompt."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:
        """`answer_id`: unique, without OpenAI's prefix; `created`: Unix time in seconds."""
        self._call = call
        self.text = answer_text(call.prompt, call.output_tokens)
        self.blocks = call.prompt.blocks(self.text.encode())
        kind = "chat.completion" if call.chat else "text_completion"
        prefix = "chatcmpl" if call.chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{answer_id}",
            "object": f"{kind}.chunk" if call.chat and call.stream else kind,
            "created": created,
            "model": call.model,
        }

    def chunk(self, start: int, end: int) -> bytes:
        """A server-sent event with the tokens from `start` up to `end`."""
        before, after = self._chunk_frame
        if start == 0 and self._call.chat:
            before = before.replace('"delta":{', '"delta":{"role":"assistant",')
        text = self.text[start * BYTES_PER_TOKEN : end * BYTES_PER_TOKEN]
        return f"{before}{text}{after}".encode()

    def end(self, cached_tokens: int) -> bytes:
        """The events after the last token: why it ended, usage where it was asked for, and the end mark."""
        events = _event(self._head | {"choices": [self._choice("", self._reason)]})
        if self._call.include_usage:
            events += _event(self._head | {"choices": [], "usage": self._usage(cached_tokens)})
        return events + DONE

    def body(self, cached_tokens: int) -> bytes:
        """The whole answer as one JSON object."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._reason, "logprobs": None}
        if self._call.chat:
            choice["message"] = {"role": "assistant", "content": self.text}
        else:
            choice["text"] = self.text
        return _json(self._head | {"choices": [choice], "usage": self._usage(cached_tokens)})

    @property
    def _reason(self) -> str:
        return "length" if self._call.limited else "stop"

    @cached_property
    def _chunk_frame(self) -> tuple[str, str]:
        """What stands before and after a chunk's text: filler words need no escaping, so one serves all."""
        event = _event(self._head | {"choices": [self._choice("%s", None)]}).decode()
        before, _, after = event.partition("%s")
        return before, after

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"text": text}
        if self._call.chat:
            content = {"delta": {"content": text} if text else {}}
        return {"index": 0, **content, "logprobs": None, "finish_reason": reason}

    def _usage(self, cached_tokens: int) -> dict[str, Any]:
        prompt, output = self._call.prompt.tokens, self._call.output_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
        }


def models(model: str) -> bytes:
    """What GET /v1/models answers."""
    entry = {"id": model, "object": "model", "created": 0, "owned_by": "kvpilot"}
    return _json({"object": "list", "data": [entry]})


def _event(message: dict[str, Any]) -> bytes:
    return b"data: " + _json(message) + b"\n\n"


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
