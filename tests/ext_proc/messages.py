"""Envoy's messages as the picker receives them."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.struct_pb2 import Struct

ADDRESS = "10.0.0.1:8000"
"""Who served the requests of `entry`."""


def headers(method: str = "POST", path: str = "/chat", *, end: bool = False) -> bytes:
    message = pb.ProcessingRequest()
    message.request_headers.end_of_stream = end
    for key, value in ((":method", method), (":path", path), ("x-session-id", "s")):
        message.request_headers.headers.headers.append(
            base_pb2.HeaderValue(key=key, raw_value=value.encode())
        )
    attributes = Struct()
    attributes["xds.cluster_name"] = "llama/stable"
    message.attributes["envoy.filters.http.ext_proc"].CopyFrom(attributes)
    return bytes(message.SerializeToString())


def body(data: bytes, *, end: bool = True) -> bytes:
    return bytes(
        pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end)).SerializeToString()
    )


def entry(
    pick_id: str = "id-1",
    *,
    over: bool = True,
    first_body_ms: str = "-",
    sent_ms: int = 0,
    code: int = 200,
    attempts: int = 1,
    **usage: float,
) -> accesslog_pb2.HTTPAccessLogEntry:
    made = accesslog_pb2.HTTPAccessLogEntry()
    common = made.common_properties
    common.metadata.filter_metadata["kvpilot"]["pick_id"] = pick_id
    for key, value in usage.items():
        common.metadata.filter_metadata["kvpilot.usage"][key] = value
    common.access_log_type = (
        accesslog_pb2.AccessLogType.DownstreamEnd if over else accesslog_pb2.AccessLogType.DownstreamPeriodic
    )
    common.custom_tags["first_body_ms"] = first_body_ms
    common.time_to_first_upstream_tx_byte.FromMilliseconds(sent_ms)
    common.upstream_request_attempt_count = attempts
    common.upstream_remote_address.socket_address.address = "10.0.0.1"
    common.upstream_remote_address.socket_address.port_value = 8000
    made.response.response_code.value = code
    return made
