"""OpenAI chat completions, completions and embeddings, with the token ids that trtllm-serve also takes."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sim.apis.api import (
    JSON_TYPE,
    Api,
    ApiError,
    Call,
    Text,
    check_model,
    dumps,
    event,
    json_object,
    length,
    limit,
)
from sim.prompt import Prompt, from_messages, from_text, from_tokens

if TYPE_CHECKING:
    from sim.apis.api import Incoming

DONE = b"data: [DONE]\n\n"

_LIMITS = ("max_completion_tokens", "max_tokens")

_VECTOR = [0.6, 0.0, -0.8]
"""Every embedding: of length 1, as OpenAI's are."""


def read_chat(incoming: Incoming) -> Call:
    """A chat for the engine. Raises ApiError with what OpenAI would answer."""
    return _read(incoming, chat=True)


def read_completion(incoming: Incoming) -> Call:
    """A prompt to complete. Raises ApiError with what OpenAI would answer."""
    return _read(incoming, chat=False)


def read_embeddings(incoming: Incoming) -> Call:
    """Texts to embed, which end with their prefill. Raises ApiError with what OpenAI would answer."""
    fields = json_object(incoming.body)
    check_model(fields, incoming.model)
    given = fields.get("input")
    each = given if isinstance(given, list) and not all(type(id_) is int for id_ in given) else [given]
    prompts = [_plain_prompt(one, "input") for one in each]
    joined = Prompt(b"".join(prompt.text for prompt in prompts))
    return Call(incoming.model, joined, 1, limited=True, stream=False, more={"n": len(each)}, cacheable=False)


def _read(incoming: Incoming, *, chat: bool) -> Call:
    fields = json_object(incoming.body)
    check_model(fields, incoming.model)
    if fields.get("n", 1) not in (None, 1):
        raise ApiError(400, "only one choice is supported", "n")
    allowed = limit(fields, _LIMITS)
    options = fields.get("stream_options")
    return Call(
        model=incoming.model,
        prompt=_chat_prompt(fields) if chat else _plain_prompt(fields.get("prompt"), "prompt"),
        output_tokens=length(allowed),
        limited=allowed is not None,
        stream=fields.get("stream") is True,
        more={"include_usage": isinstance(options, dict) and options.get("include_usage") is True},
    )


def _chat_prompt(fields: dict[str, Any]) -> Prompt:
    if fields.get("prompt_token_ids"):
        return _plain_prompt(fields["prompt_token_ids"], "prompt_token_ids")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with at least one message", "messages")
    return from_messages(messages, fields.get("tools"))


def _plain_prompt(prompt: object, name: str) -> Prompt:
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return from_text(prompt)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        try:
            return from_tokens(prompt)
        except ValueError as error:
            raise ApiError(400, str(error), name) from error
    raise ApiError(400, f"{name} must be one string or one list of token ids", name)


class Completion:
    """The answer to a chat or a completion."""

    def __init__(self, call: Call, answer_id: str, created: int, *, chat: bool) -> None:
        self._call = call
        self._chat = chat
        self._text = Text(call)
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{answer_id}",
            "object": f"{kind}.chunk" if chat and call.stream else kind,
            "created": created,
            "model": call.model,
        }

    def chunk(self, start: int, end: int) -> bytes:
        """A server-sent event with the tokens from `start` up to `end`."""
        before, after = self._chunk_frame
        if start == 0 and self._chat:
            before = before.replace('"delta":{', '"delta":{"role":"assistant",')
        text = self._text.part(start, end)
        return f"{before}{text}{after}".encode()

    def end(self, cached_tokens: int) -> bytes:
        """The events after the last token: why it ended, usage where it was asked for, and the end mark."""
        events = event(self._head | {"choices": [self._choice("", self._reason)]})
        if self._call.more["include_usage"]:
            events += event(self._head | {"choices": [], "usage": self._usage(cached_tokens)})
        return events + DONE

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The whole answer as one JSON object."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": self._reason, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": self._text.whole}
        else:
            choice["text"] = self._text.whole
        found = self._head | {"choices": [choice], "usage": self._usage(cached_tokens)}
        return dumps(found), {"Content-Type": JSON_TYPE}

    @property
    def _reason(self) -> str:
        return "length" if self._call.limited else "stop"

    @cached_property
    def _chunk_frame(self) -> tuple[str, str]:
        """What stands before and after a chunk's text: filler words need no escaping, so one serves all."""
        framed = event(self._head | {"choices": [self._choice("%s", None)]}).decode()
        before, _, after = framed.partition("%s")
        return before, after

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"text": text}
        if self._chat:
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


class Embeddings:
    """Vectors, the same for every text; never streamed."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:  # noqa: ARG002
        self._call = call

    def chunk(self, start: int, end: int) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def end(self, cached_tokens: int) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:  # noqa: ARG002
        """The vectors and what they cost."""
        data = [
            {"object": "embedding", "index": n, "embedding": _VECTOR} for n in range(self._call.more["n"])
        ]
        tokens = self._call.prompt.tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        found = {"object": "list", "data": data, "model": self._call.model, "usage": usage}
        return dumps(found), {"Content-Type": JSON_TYPE}


def models(model: str) -> bytes:
    """What GET /v1/models answers."""
    entry = {"id": model, "object": "model", "created": 0, "owned_by": "kvpilot"}
    return dumps({"object": "list", "data": [entry]})


CHAT = Api(read_chat, lambda call, id_, at: Completion(call, id_, at, chat=True))
COMPLETIONS = Api(read_completion, lambda call, id_, at: Completion(call, id_, at, chat=False))
EMBEDDINGS = Api(read_embeddings, Embeddings)
