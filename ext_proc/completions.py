"""Envoy's access log as news for the picker: first tokens while answers run, outcomes when they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from envoy.data.accesslog.v3 import accesslog_pb2 as pb
from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from ext_proc.answer import GRPC_OK, GRPC_SERVER_ERRORS, SERVER_ERROR, counted_apart
from fleet import address as addresses
from fleet.names import (
    CACHE_READ_KEY,
    CACHE_WRITTEN_KEY,
    CACHED_TOKENS_KEY,
    COMPLETION_TOKENS_KEY,
    FIRST_BODY_TAG,
    GRPC_STATUS_TAG,
    KSERVE_STREAM,
    PICK_ID_KEY,
    PICK_NAMESPACE,
    PROMPT_TOKENS_KEY,
    USAGE_NAMESPACE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ext_proc.picker import Picker

_FAILURE_FLAGS = (
    "failed_local_healthcheck",
    "no_healthy_upstream",
    "upstream_request_timeout",
    "upstream_remote_reset",
    "upstream_connection_failure",
    "upstream_connection_termination",
    "upstream_retry_limit_exceeded",
    "upstream_protocol_error",
    "stream_idle_timeout",
)
_CLIENT_LEFT_FLAGS = ("downstream_connection_termination", "downstream_remote_reset")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One log entry about a pick.

    `first_token` is seconds from when Envoy turned to the endpoint; token counts are None where the answer
    told none; `endpoint` is '' where the request reached nobody.
    """

    pick_id: str
    over: bool
    first_token: float | None = None
    attempts: int = 1
    endpoint: str = ""  # where Envoy dialled it
    ok: bool = False  # the status is a success
    failed: bool = False  # and it was the endpoint's doing
    cut: bool = False  # the client left before the end
    decode_seconds: float | None = None  # from the first body byte to the last
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


def read(data: bytes) -> Iterator[LogEntry]:
    """Every entry of a message of Envoy's access log stream that names a pick; other bytes give none."""
    try:
        message = als_pb2.StreamAccessLogsMessage.FromString(data)
    except DecodeError:
        return
    for entry in message.http_logs.log_entry:
        parsed = _entry(entry)
        if parsed is not None:
            yield parsed


def apply(entry: LogEntry, picker: Picker, now: float) -> bool:
    """Tell the picker. False where it has no such request: a stranger's, or one that is over."""
    placed_at = picker.placed_at(entry.pick_id)
    if placed_at is None:
        return False
    endpoint = picker.endpoint_at(entry.endpoint)
    picker.running(entry.pick_id, now, endpoint=endpoint, attempts=entry.attempts)
    # The first byte of an error page says nothing about a prefill.
    if entry.first_token is not None and entry.ok:
        picker.first_token(entry.pick_id, min(now, placed_at + entry.first_token))
    if entry.over:
        picker.finish(
            entry.pick_id,
            now,
            endpoint=endpoint,
            failed=entry.failed,
            answered=entry.ok and not entry.cut,
            decode_seconds=entry.decode_seconds,
            output_tokens=entry.output_tokens,
            prompt_tokens=entry.prompt_tokens,
            cached_tokens=entry.cached_tokens,
        )
    return True


def _entry(entry: pb.HTTPAccessLogEntry) -> LogEntry | None:
    common = entry.common_properties
    metadata = common.metadata.filter_metadata
    if PICK_NAMESPACE not in metadata:
        return None
    pick_id = metadata[PICK_NAMESPACE].fields[PICK_ID_KEY].string_value
    if not pick_id:
        return None
    usage = _usage(metadata)
    over = common.access_log_type != pb.AccessLogType.DownstreamPeriodic
    cut = any(getattr(common.response_flags, flag) for flag in _CLIENT_LEFT_FLAGS)
    # Where trailers have not come, or never will, Envoy reports UNKNOWN.
    status = _grpc_status(common) if over and not cut else ""
    return LogEntry(
        pick_id=pick_id,
        over=over,
        first_token=_first_token(common),
        attempts=common.upstream_request_attempt_count,
        endpoint=_address(common.upstream_remote_address),
        ok=200 <= entry.response.response_code.value < 300 and status in ("", GRPC_OK),
        failed=status in GRPC_SERVER_ERRORS or _failed(entry),
        cut=cut,
        decode_seconds=_decode_seconds(common),
        output_tokens=usage.get(COMPLETION_TOKENS_KEY),
        prompt_tokens=usage.get(PROMPT_TOKENS_KEY),
        cached_tokens=usage.get(CACHED_TOKENS_KEY),
    )


def _usage(metadata: Mapping[str, object]) -> dict[str, int]:
    """Token counts that Envoy lifted out of the answer; absent where the answer carried none."""
    if USAGE_NAMESPACE not in metadata:
        return {}
    fields = metadata[USAGE_NAMESPACE].fields  # type: ignore[attr-defined]
    usage = {key: int(value.number_value) for key, value in fields.items() if 0 <= value.number_value < 1e9}
    read, written = usage.pop(CACHE_READ_KEY, None), usage.pop(CACHE_WRITTEN_KEY, None)
    prompt = usage.get(PROMPT_TOKENS_KEY)
    if prompt is not None and (read is not None or written is not None):
        usage[PROMPT_TOKENS_KEY], usage[CACHED_TOKENS_KEY] = counted_apart(prompt, read, written)
    return usage


def _first_token(common: pb.AccessLogCommon) -> float | None:
    try:
        milliseconds = float(common.custom_tags.get(FIRST_BODY_TAG, "-"))
    except ValueError:
        return None
    sent: float = common.time_to_first_upstream_tx_byte.ToNanoseconds() / 1e9
    return max(0.0, milliseconds / 1e3 - sent)


def _decode_seconds(common: pb.AccessLogCommon) -> float | None:
    try:
        first = float(common.custom_tags.get(FIRST_BODY_TAG, "-")) / 1e3
    except ValueError:
        return None
    last: float = common.time_to_last_upstream_rx_byte.ToNanoseconds() / 1e9
    return last - first if last > first else None


def _grpc_status(common: pb.AccessLogCommon) -> str:
    """How a gRPC call ended, by number; '' where it is none."""
    status: str = common.custom_tags.get(GRPC_STATUS_TAG, "-")
    return status.removeprefix("-")


def _failed(entry: pb.HTTPAccessLogEntry) -> bool:
    if entry.response.response_code.value >= SERVER_ERROR:
        return True
    flags = entry.common_properties.response_flags
    failures = [flag for flag in _FAILURE_FLAGS if getattr(flags, flag)]
    # Where both sides speak, silence is nobody's failure: the client may have nothing to ask.
    return bool(failures) and not (failures == ["stream_idle_timeout"] and _stays_open(entry))


def _stays_open(entry: pb.HTTPAccessLogEntry) -> bool:
    path: str = entry.request.path
    return path.endswith(KSERVE_STREAM)


def _address(address: object) -> str:
    """`ip:port` of an Envoy address, IPv6 in brackets; '' if it is none."""
    socket = address.socket_address  # type: ignore[attr-defined]
    if not socket.address:
        return ""
    return addresses.join(socket.address, socket.port_value)
