"""An endpoint picker's answers to a gateway in FULL_DUPLEX_STREAMED, as bytes ready to send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.reply import name_endpoints
from fleet.names import DESTINATION_KEY, DROPPED_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ext_proc.decision import Decision

Side = Literal["request", "response"]

CHUNK_BYTES = 62_000
"""Of body in one message: what the protocol's other pickers send, below Envoy's 64 KiB windows."""

SERVED_TEST_HEADER = "x-conformance-test-served-endpoint"
"""Response header that the Gateway API's conformance tests look for."""

NO_ENDPOINTS = "rejected-no-endpoints"
"""A reason of `x-llm-d-request-dropped-reason`; another is in `reply`."""

UNAVAILABLE = 503


def destination(decision: Decision) -> bytes:
    """The headers may go on, to the decision's endpoints in order: told in a header and in metadata alike."""
    response = pb.ProcessingResponse()
    common = response.request_headers.response
    common.header_mutation.set_headers.append(_header(DESTINATION_KEY, ",".join(decision.destinations)))
    common.clear_route_cache = True
    name_endpoints(response, decision)
    return _bytes(response)


def chunks(side: Side, body: bytes, *, end: bool) -> Iterator[bytes]:
    """The body back, in messages of a size that Envoy takes; `end` is on the last."""
    view = memoryview(body)
    for start in range(0, max(1, len(body)), CHUNK_BYTES):
        response = pb.ProcessingResponse()
        part = response.request_body if side == "request" else response.response_body
        streamed = part.response.body_mutation.streamed_response
        streamed.body = bytes(view[start : start + CHUNK_BYTES])
        streamed.end_of_stream = end and start + CHUNK_BYTES >= len(body)
        yield _bytes(response)


def served(endpoint: str, *, tell: bool) -> bytes:
    """The answer's headers go on; to `tell` the client who serves is for conformance tests only."""
    response = pb.ProcessingResponse(response_headers=pb.HeadersResponse())
    if tell and endpoint:
        mutation = response.response_headers.response.header_mutation
        mutation.set_headers.append(_header(SERVED_TEST_HEADER, endpoint))
    return _bytes(response)


def refused(status: int, reason: str, message: str) -> bytes:
    """An answer in the model's place, with the protocol's word for the `reason`."""
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = status
    immediate.details = reason
    immediate.body = json.dumps({"error": {"message": message, "code": reason}}).encode()
    for key, value in ((DROPPED_HEADER, reason), ("content-type", "application/json")):
        immediate.headers.set_headers.append(_header(key, value))
    return _bytes(response)


def _header(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=key, raw_value=value.encode()),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,  # whatever a client wrote there
    )


def _bytes(response: pb.ProcessingResponse) -> bytes:
    data: bytes = response.SerializeToString()
    return data


TRAILERS: dict[Side, bytes] = {
    "request": _bytes(pb.ProcessingResponse(request_trailers=pb.TrailersResponse())),
    "response": _bytes(pb.ProcessingResponse(response_trailers=pb.TrailersResponse())),
}
"""The trailers go on as they are."""

RESPONSE_BODY_PASS: bytes = _bytes(pb.ProcessingResponse(response_body=pb.BodyResponse()))
"""A part of the answer goes on, where it need not be sent back."""
