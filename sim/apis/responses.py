"""OpenAI responses, whole and as events."""

from __future__ import annotations

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
from sim.prompt import from_messages

if TYPE_CHECKING:
    from sim.apis.api import Incoming


def read(incoming: Incoming) -> Call:
    """Instructions and input. Raises ApiError with what OpenAI would answer."""
    fields = json_object(incoming.body)
    check_model(fields, incoming.model)
    given = fields.get("input")
    if not given or not isinstance(given, (str, list)):
        raise ApiError(400, "input must be a string or a list of items", "input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    if isinstance(fields.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": fields["instructions"]})
    allowed = limit(fields, ("max_output_tokens",))
    return Call(
        model=incoming.model,
        prompt=from_messages(messages, fields.get("tools")),
        output_tokens=length(allowed),
        limited=allowed is not None,
        stream=fields.get("stream") is True,
        more={"previous_response_id": fields.get("previous_response_id")},
    )


class Response:
    """The answer: one message with one text."""

    def __init__(self, call: Call, answer_id: str, created: int) -> None:
        self._call = call
        self._text = Text(call)
        self._events = 0
        self._item_id = f"msg_{answer_id}"
        self._head = {
            "id": f"resp_{answer_id}",
            "object": "response",
            "created_at": created,
            "model": call.model,
            "error": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "previous_response_id": call.more["previous_response_id"],
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
        }

    def chunk(self, start: int, end: int) -> bytes:
        """A delta; before the first, that the response has begun."""
        begun = b"" if start else self._begin()
        return begun + self._event(
            "response.output_text.delta", **self._place, delta=self._text.part(start, end), logprobs=[]
        )

    def end(self, cached_tokens: int) -> bytes:
        """That everything that was begun is done, and usage."""
        item = self._item("completed", [self._part(self._text.whole)])
        return (
            self._event("response.output_text.done", **self._place, text=self._text.whole, logprobs=[])
            + self._event("response.content_part.done", **self._place, part=self._part(self._text.whole))
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event(f"response.{self._status}", response=self._whole(cached_tokens))
        )

    def body(self, cached_tokens: int) -> tuple[bytes, dict[str, str]]:
        """The whole response."""
        return dumps(self._whole(cached_tokens)), {"Content-Type": JSON_TYPE}

    def _begin(self) -> bytes:
        empty = self._head | {
            "status": "in_progress",
            "output": [],
            "incomplete_details": None,
            "usage": None,
        }
        return (
            self._event("response.created", response=empty)
            + self._event("response.in_progress", response=empty)
            + self._event("response.output_item.added", output_index=0, item=self._item("in_progress", []))
            + self._event("response.content_part.added", **self._place, part=self._part(""))
        )

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    @property
    def _status(self) -> str:
        return "incomplete" if self._call.limited else "completed"

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._events += 1
        return event({"type": kind, "sequence_number": self._events - 1, **fields}, kind)

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _whole(self, cached_tokens: int) -> dict[str, Any]:
        prompt, output = self._call.prompt.tokens, self._call.output_tokens
        return self._head | {
            "status": self._status,
            "incomplete_details": {"reason": "max_output_tokens"} if self._call.limited else None,
            "output": [self._item("completed", [self._part(self._text.whole)])],
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + output,
            },
        }


RESPONSES = Api(read, Response)
