"""Batches of events to bytes and back. Times on the wire are the store's, in memory this process's.

Bytes come from outside: what is no batch, a batch of a newer layout, and an event whose numbers make no
sense are left out, and counted by whoever reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from ext_proc.events import (
    Asked,
    Began,
    BlocksRemoved,
    BlocksStored,
    Cancelled,
    Ended,
    Left,
    Moved,
    Placed,
    Standing,
    Waits,
)
from ext_proc.replication import events_pb2 as pb
from ext_proc.request import RoutingRequest
from fleet.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ext_proc.events import SharedEvent

LAYOUT = 1
"""Version of the batches written here; readers refuse a higher one."""

NUMBER_MAX = 1e12
"""Of tokens and seconds: a larger one, or a negative one, would poison a ledger and is nobody's."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one replica told at once, the `number`th time; `unreadable` events of it are left out."""

    sender: str
    number: int
    events: tuple[SharedEvent, ...]
    unreadable: int = 0


def encode(events: Iterable[SharedEvent], sender: str, number: int, offset: float) -> bytes:
    """A batch. `offset`: seconds that the store's clock is ahead of this process's."""
    batch = pb.EventBatch(version=LAYOUT, sender=sender, number=number)
    for event in events:
        try:
            _WRITERS[type(event)](batch.events.add(), event, offset)
        except (TypeError, ValueError):  # a number of a log or a request that no field takes
            del batch.events[-1]
    data: bytes = batch.SerializeToString()
    return data


def decode(data: bytes, offset: float) -> Batch:
    """The batch that `data` holds. Raises RecordError for other bytes or a newer layout."""
    try:
        message = pb.EventBatch.FromString(data)
    except DecodeError as error:
        raise RecordError(f"event batch of {len(data)} bytes is not a message") from error
    if not 1 <= message.version <= LAYOUT:
        raise RecordError(f"event batch has layout {message.version}, this is {LAYOUT}")
    events: list[SharedEvent] = []
    unreadable = 0
    for raw in message.events:
        kind = raw.WhichOneof("kind")
        event = None if kind is None else _READERS[kind](getattr(raw, kind), offset, message.sender)
        if event is None:
            unreadable += 1
        else:
            events.append(event)
    return Batch(message.sender, message.number, tuple(events), unreadable)


def _sane(*numbers: float) -> bool:
    return all(0 <= number < NUMBER_MAX for number in numbers)


def _write_placed(out: Any, event: Placed, offset: float) -> None:
    asked = event.request
    out.placed.id = event.id
    message = out.placed
    message.at = event.at + offset
    message.endpoints.extend(event.endpoints)
    message.blocks.extend(asked.blocks)
    message.prompt_tokens = asked.prompt_tokens
    message.tokens_per_block = asked.tokens_per_block
    if asked.output_limit is not None and asked.output_limit >= 0:
        message.output_limit = min(asked.output_limit, 1 << 63)
    message.session = _text(asked.session)
    message.streamed = asked.streamed
    message.model = _text(asked.model)
    message.lora = _text(asked.lora)
    message.batch = asked.workload_class == "batch"
    message.believed_tokens = event.believed_tokens
    message.matched_tokens = event.matched_tokens
    message.uncached_tokens = event.uncached_tokens
    message.work = event.work
    message.prefill = event.prefill
    message.again = event.again


def _read_placed(raw: Any, offset: float, sender: str) -> Placed | None:
    endpoints = tuple(raw.endpoints)
    tokens = (raw.believed_tokens, raw.matched_tokens, raw.uncached_tokens)
    if not endpoints or not math.isfinite(raw.at) or not _sane(*tokens, raw.work, raw.prefill):
        return None
    if not _sane(raw.prompt_tokens, raw.tokens_per_block):
        return None
    request = RoutingRequest(
        candidates=endpoints,  # who else might have been chosen, nobody needs to know
        prompt_tokens=raw.prompt_tokens,
        blocks=list(raw.blocks),
        tokens_per_block=raw.tokens_per_block,
        output_limit=raw.output_limit if raw.HasField("output_limit") else None,
        session=raw.session,
        streamed=raw.streamed,
        model=raw.model,
        lora=raw.lora,
        workload_class="batch" if raw.batch else "interactive",
    )
    made = (*tokens, raw.work, raw.prefill, sender, raw.again)
    return Placed(raw.id, raw.at - offset, request, endpoints, *made)


def _write_ended(out: Any, event: Ended, offset: float) -> None:
    message = out.ended
    message.id = event.id
    message.at = event.at + offset
    message.endpoint = event.endpoint
    message.failed = event.failed
    message.answered = event.answered
    if event.decode_seconds is not None:
        message.decode_seconds = event.decode_seconds
    for name in ("output_tokens", "prompt_tokens", "cached_tokens"):
        count = getattr(event, name)
        if count is not None:
            setattr(message, name, count)


def _read_ended(raw: Any, offset: float, _: str) -> Ended | None:
    def optional(name: str) -> Any:
        return getattr(raw, name) if raw.HasField(name) else None

    counts = tuple(optional(name) for name in ("output_tokens", "prompt_tokens", "cached_tokens"))
    seconds = optional("decode_seconds")
    if not math.isfinite(raw.at) or not _sane(*(n for n in (*counts, seconds) if n is not None)):
        return None
    return Ended(raw.id, raw.at - offset, raw.endpoint, raw.failed, raw.answered, seconds, *counts)


def _write_moved(out: Any, event: Moved, offset: float) -> None:
    message = out.moved
    message.id, message.at = event.id, event.at + offset
    message.endpoint, message.attempts = event.endpoint, min(max(event.attempts, 0), 1 << 31)


def _read_moved(raw: Any, offset: float, _: str) -> Moved | None:
    return Moved(raw.id, raw.at - offset, raw.endpoint, raw.attempts) if math.isfinite(raw.at) else None


def _write_began(out: Any, event: Began, offset: float) -> None:
    out.began.id, out.began.at = event.id, event.at + offset


def _read_began(raw: Any, offset: float, _: str) -> Began | None:
    return Began(raw.id, raw.at - offset) if math.isfinite(raw.at) else None


def _write_cancelled(out: Any, event: Cancelled, offset: float) -> None:
    out.cancelled.id, out.cancelled.at = event.id, event.at + offset


def _read_cancelled(raw: Any, offset: float, _: str) -> Cancelled | None:
    return Cancelled(raw.id, raw.at - offset) if math.isfinite(raw.at) else None


def _write_waits(out: Any, event: Waits, offset: float) -> None:
    message = out.waits
    message.id, message.address = event.id, event.address
    message.turn, message.turn_number = event.turn[0] + offset, event.turn[1]
    message.reserved, message.prefill = event.reserved, event.prefill


def _read_waits(raw: Any, offset: float, sender: str) -> Waits | None:
    if not math.isfinite(raw.turn) or not _sane(raw.reserved, raw.prefill):
        return None
    turn = (raw.turn - offset, raw.turn_number)
    return Waits(raw.id, sender, turn, raw.address, raw.reserved, raw.prefill)


def _write_left(out: Any, event: Left, _: float) -> None:
    out.left.id = event.id


def _write_stored(out: Any, event: BlocksStored, _: float) -> None:
    out.stored.address = event.address
    out.stored.blocks.extend(event.blocks)


def _write_removed(out: Any, event: BlocksRemoved, _: float) -> None:
    out.removed.address = event.address
    if event.blocks is None:
        out.removed.all = True
    else:
        out.removed.blocks.extend(event.blocks)


def _read_removed(raw: Any, _: float, __: str) -> BlocksRemoved:
    return BlocksRemoved(raw.address, None if raw.all else list(raw.blocks))


def _write_standing(out: Any, event: Standing, _: float) -> None:
    out.standing.SetInParent()
    out.standing.ids.extend(event.ids)


def _write_asked(out: Any, _: Asked, __: float) -> None:
    out.asked.SetInParent()


def _text(text: str) -> str:
    """What protobuf takes as a string: clients may send lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_WRITERS: dict[type, Callable[[Any, Any, float], None]] = {
    Placed: _write_placed,
    Began: _write_began,
    Moved: _write_moved,
    Ended: _write_ended,
    Cancelled: _write_cancelled,
    Waits: _write_waits,
    Left: _write_left,
    BlocksStored: _write_stored,
    BlocksRemoved: _write_removed,
    Standing: _write_standing,
    Asked: _write_asked,
}

_READERS: dict[str, Callable[[Any, float, str], SharedEvent | None]] = {
    "placed": _read_placed,
    "began": _read_began,
    "moved": _read_moved,
    "ended": _read_ended,
    "cancelled": _read_cancelled,
    "waits": _read_waits,
    "left": lambda raw, _, __: Left(raw.id),
    "stored": lambda raw, _, __: BlocksStored(raw.address, list(raw.blocks)),
    "removed": _read_removed,
    "standing": lambda raw, _, sender: Standing(sender, tuple(raw.ids)),
    "asked": lambda _, __, sender: Asked(sender),
}
