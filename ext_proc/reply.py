"""The picker's answers to Envoy, as bytes ready to send."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.admission.refusal import RESOURCE_EXHAUSTED
from fleet.names import (
    DESTINATION_KEY,
    DROPPED_HEADER,
    HOLD_SLACK_SECONDS,
    LB_NAMESPACE,
    PICK_ID_KEY,
    PICK_NAMESPACE,
    REASON_HEADER,
    RETRY_AFTER_HEADER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.admission.refusal import Refusal
    from ext_proc.decision import Decision

HEADERS_PASS: bytes = pb.ProcessingResponse(request_headers=pb.HeadersResponse()).SerializeToString()
"""Go on: the headers stay as they are."""

_NOTHING_MORE = ProcessingMode(
    response_header_mode=ProcessingMode.SKIP,  # the default would send them
    request_body_mode=ProcessingMode.NONE,
    response_body_mode=ProcessingMode.NONE,
    request_trailer_mode=ProcessingMode.SKIP,
    response_trailer_mode=ProcessingMode.SKIP,
)

HEADERS_PASS_ALL: bytes = pb.ProcessingResponse(
    request_headers=pb.HeadersResponse(), mode_override=_NOTHING_MORE
).SerializeToString()
"""Go on, and neither gather the body nor send it: nothing will be decided of it."""

BODY_PASS: bytes = pb.ProcessingResponse(request_body=pb.BodyResponse()).SerializeToString()
"""Go on: the body stays as it is, and no endpoint is named."""


@cache
def wait(longest: float) -> bytes:
    """No reply yet: it may take `longest` seconds. Envoy takes this once for each of its messages."""
    response = pb.ProcessingResponse()
    response.override_message_timeout.FromNanoseconds(int((longest + HOLD_SLACK_SECONDS) * 1e9))
    data: bytes = response.SerializeToString()
    return data


def headers_steered(decision: Decision) -> bytes:
    """Go on to the decision's endpoints in order, and neither gather the body nor send it."""
    return _steered(
        pb.ProcessingResponse(request_headers=pb.HeadersResponse(), mode_override=_NOTHING_MORE), decision
    )


def body_steered(decision: Decision) -> bytes:
    """Go on with the body as it is, to the decision's endpoints in order."""
    return _steered(pb.ProcessingResponse(request_body=pb.BodyResponse()), decision)


def _steered(response: pb.ProcessingResponse, decision: Decision) -> bytes:
    name_endpoints(response, decision)
    data: bytes = response.SerializeToString()
    return data


def name_endpoints(response: pb.ProcessingResponse, decision: Decision) -> None:
    """Put the decision into the metadata that Envoy's override_host obeys, with its id for the log."""
    fields = response.dynamic_metadata.fields
    destination = fields[LB_NAMESPACE].struct_value.fields[DESTINATION_KEY]
    destination.string_value = ",".join(decision.destinations)
    fields[PICK_NAMESPACE].struct_value.fields[PICK_ID_KEY].string_value = decision.id


DROPPED = "rejected-saturated"
"""The endpoint-picker protocol's word for a request that was refused for want of room."""


def refuse(refusal: Refusal, headers: Mapping[str, str], *, endpoint_picker: bool = False) -> bytes:
    """Answer in place of the model. gRPC clients get a status, all others an error in JSON.

    `endpoint_picker`: say why in that protocol's words, too.
    """
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = refusal.status
    immediate.details = f"kvpilot_{refusal.reason}"
    told = {RETRY_AFTER_HEADER: str(refusal.retry_after), REASON_HEADER: refusal.reason}
    if endpoint_picker:
        told[DROPPED_HEADER] = DROPPED
    if headers.get("content-type", "").startswith("application/grpc"):
        immediate.grpc_status.status = RESOURCE_EXHAUSTED
        immediate.body = refusal.message.encode()
    else:
        told["content-type"] = "application/json"
        immediate.body = refusal.body()
    for key, value in told.items():
        option = immediate.headers.set_headers.add()
        option.header.key, option.header.raw_value = key, value.encode()
        option.append_action = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    data: bytes = response.SerializeToString()
    return data
