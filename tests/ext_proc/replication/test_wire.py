from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from ext_proc.replication.wire import LAYOUT, decode, encode
from ext_proc.request import RoutingRequest
from fleet.errors import RecordError

if TYPE_CHECKING:
    from ext_proc.events import SharedEvent

OFFSET = 1_700_000_000.0
REQUEST = RoutingRequest(
    ("a:1", "b:1"), 100.0, [1, 2**64 - 1], 64.0, 7, "s", streamed=False, model="m", lora="l"
)
PLACED = Placed("id", 5.0, REQUEST, ("a:1", "b:1"), 3.0, 2.0, 98.0, 99.0, 0.5, "me")
EVENTS: tuple[SharedEvent, ...] = (
    PLACED,
    replace(PLACED, request=replace(REQUEST, workload_class="batch", output_limit=None), again=True),
    Began("id", 6.0),
    Moved("id", 6.5, "b:1", 2),
    Ended("id", 7.0, "b:1", failed=True, answered=False),
    Ended("id", 7.0, "b:1", decode_seconds=0.5, output_tokens=0, prompt_tokens=10, cached_tokens=3),
    Cancelled("id", 8.0),
    Waits("me/1", "me", (9.5, 1), "a:1", 0.5, 0.25),
    Left("me/1"),
    BlocksStored("a:1", [1, 2]),
    BlocksRemoved("a:1", [1, 2]),
    BlocksRemoved("a:1", []),
    BlocksRemoved("a:1", None),
    Standing("me", ("id", "other")),
    Standing("me", ()),
    Asked("me"),
)


def test_events_survive_the_way_on_clocks_that_differ() -> None:
    data = encode(EVENTS, "me", 3, OFFSET)
    batch = decode(data, OFFSET)
    assert (batch.sender, batch.number, batch.unreadable) == ("me", 3, 0)
    assert batch.events == EVENTS
    later = decode(data, OFFSET + 2.0).events
    assert isinstance(later[0], Placed)
    assert later[0].at == pytest.approx(3.0)
    assert isinstance(later[7], Waits)
    assert later[7].turn == (7.5, 1)


def test_a_batch_of_a_newer_layout_and_other_bytes_are_record_errors() -> None:
    newer = pb.EventBatch(version=LAYOUT + 1, sender="me").SerializeToString()
    for data in (newer, b"", b"\xff\xff\xff"):
        with pytest.raises(RecordError):
            decode(data, 0.0)


def test_a_kind_of_event_that_is_not_known_here_is_left_out_and_counted() -> None:
    batch = pb.EventBatch(version=LAYOUT, sender="me", number=1)
    batch.events.add()  # as one of a later version reads here
    batch.events.add().began.id = "id"
    read = decode(batch.SerializeToString(), 0.0)
    assert (len(read.events), read.unreadable) == (1, 1)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0, 1e300])
@pytest.mark.parametrize("field", ["work", "prefill", "uncached_tokens", "prompt_tokens"])
def test_numbers_that_would_poison_a_ledger_are_left_out(field: str, wrong: float) -> None:
    batch = pb.EventBatch.FromString(encode([PLACED], "me", 1, 0.0))
    setattr(batch.events[0].placed, field, wrong)
    read = decode(batch.SerializeToString(), 0.0)
    assert (read.events, read.unreadable) == ((), 1)


def test_what_no_field_takes_is_left_out_and_the_rest_goes() -> None:
    odd = replace(PLACED, request=replace(REQUEST, session="\ud800", blocks=[1 << 70]))
    assert decode(encode([odd, Began("id", 1.0)], "me", 1, 0.0), 0.0).events == (Began("id", 1.0),)


def test_a_session_that_is_no_text_goes_as_near_to_it_as_can_be() -> None:
    odd = replace(PLACED, request=replace(REQUEST, session="a\ud800"))
    (read,) = decode(encode([odd], "me", 1, 0.0), 0.0).events
    assert isinstance(read, Placed)
    assert read.request.session == "a?"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_a_record_error_and_nothing_else(data: bytes) -> None:
    try:
        decode(data, 0.0)
    except RecordError:
        pass
    else:
        assert pb.EventBatch.FromString(data).version >= 1


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_batch_raises_nothing_else_either(place: int, byte: int) -> None:
    data = bytearray(encode(EVENTS, "me", 3, OFFSET))
    data[place % len(data)] = byte
    try:
        read = decode(bytes(data), OFFSET)
    except RecordError:
        return
    assert len(read.events) + read.unreadable <= len(EVENTS) + 1
