"""Records to bytes and back: the only place that knows both the dataclasses and their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from fleet.errors import RecordError
from fleet.model import Load, Rate, Traffic, Weight
from fleet.store import records_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = 1
"""Version of the record layout written here; readers refuse a higher one."""


def _load_to_message(load: Load) -> pb.LoadRecord:
    return pb.LoadRecord(
        version=LAYOUT,
        at=load.at,
        ready=load.ready,
        reason=load.reason,
        kv_blocks_used=load.kv_blocks_used,
        kv_blocks_max=load.kv_blocks_max,
        tokens_per_block=load.tokens_per_block,
        running=load.running,
        waiting=load.waiting,
        max_requests=load.max_requests,
    )


def _load_from_message(message: pb.LoadRecord) -> Load:
    return Load(
        at=message.at,
        ready=message.ready,
        reason=message.reason,
        kv_blocks_used=message.kv_blocks_used,
        kv_blocks_max=message.kv_blocks_max,
        tokens_per_block=message.tokens_per_block,
        running=message.running,
        waiting=message.waiting,
        max_requests=message.max_requests,
    )


def _rate_to_message(rate: Rate) -> pb.RateRecord:
    return pb.RateRecord(
        version=LAYOUT,
        at=rate.at,
        prefill_tokens_per_second=rate.prefill,
        seconds_per_output_token=rate.tpot,
        observations=rate.observations,
    )


def _rate_from_message(message: pb.RateRecord) -> Rate:
    return Rate(
        prefill=message.prefill_tokens_per_second,
        tpot=message.seconds_per_output_token,
        at=message.at,
        observations=message.observations,
    )


def _weight_to_message(weight: Weight) -> pb.WeightRecord:
    return pb.WeightRecord(version=LAYOUT, at=weight.at, value=weight.value)


def _weight_from_message(message: pb.WeightRecord) -> Weight:
    return Weight(at=message.at, value=message.value)


def _traffic_to_message(traffic: Traffic) -> pb.TrafficRecord:
    return pb.TrafficRecord(
        version=LAYOUT,
        at=traffic.at,
        in_flight=traffic.in_flight,
        match_ratio=traffic.match_ratio,
        ttft_p50_seconds=traffic.ttft_p50,
        ttft_p95_seconds=traffic.ttft_p95,
    )


def _traffic_from_message(message: pb.TrafficRecord) -> Traffic:
    def optional(name: str) -> float | None:
        return getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]

    return Traffic(
        at=message.at,
        in_flight=message.in_flight,
        match_ratio=optional("match_ratio"),
        ttft_p50=optional("ttft_p50_seconds"),
        ttft_p95=optional("ttft_p95_seconds"),
    )


@dataclass(frozen=True, slots=True)
class _Codec:
    name: str
    message: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_CODECS: dict[type, _Codec] = {
    Load: _Codec("load", pb.LoadRecord, _load_to_message, _load_from_message),
    Rate: _Codec("rate", pb.RateRecord, _rate_to_message, _rate_from_message),
    Weight: _Codec("weight", pb.WeightRecord, _weight_to_message, _weight_from_message),
    Traffic: _Codec("traffic", pb.TrafficRecord, _traffic_to_message, _traffic_from_message),
}


KINDS = tuple(_CODECS)
"""Every kind of record."""


def kind_name(kind: type) -> str:
    """The short name of a record kind, used in keys."""
    return _CODECS[kind].name


def encode(record: Load | Rate | Weight | Traffic) -> bytes:
    """A record as it lies in Redis."""
    data: bytes = _CODECS[type(record)].encode(record).SerializeToString()
    return data


def decode(kind: type, data: bytes) -> Any:
    """The record that `data` holds. Raises RecordError for other bytes or a newer layout."""
    codec = _CODECS[kind]
    try:
        message = codec.message.FromString(data)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise RecordError(f"{codec.name} record of {len(data)} bytes is not a message") from error
    if not 1 <= message.version <= LAYOUT:
        raise RecordError(f"{codec.name} record has layout {message.version}, this is {LAYOUT}")
    return codec.decode(message)
