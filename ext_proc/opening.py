"""What Envoy's messages say besides the body: headers, the cluster, the modes, who may serve and who did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from ext_proc.trust import NO_EVIDENCE, Evidence, RequestHeaders
from fleet.names import (
    CLUSTER_ATTRIBUTE,
    LB_NAMESPACE,
    SAN_ATTRIBUTE,
    SERVED_KEY,
    SUBSET_KEY,
    SUBSET_NAMESPACE,
)

if TYPE_CHECKING:
    from envoy.config.core.v3.base_pb2 import HeaderMap
    from google.protobuf.struct_pb2 import Value

_ENDPOINT_NAMESPACES = (LB_NAMESPACE, SUBSET_NAMESPACE)  # of metadata that speaks of endpoints


def headers_of(message: pb.HttpHeaders) -> dict[str, str]:
    """Headers by lower-case name; of one that is repeated, the last."""
    return _by_name(message.headers)


def trailers_of(message: pb.HttpTrailers) -> dict[str, str]:
    """Trailers by lower-case name, like headers."""
    return _by_name(message.trailers)


def _by_name(headers: HeaderMap) -> dict[str, str]:
    # Envoy fills raw_value; value is for senders older than that.
    return {
        h.key: h.raw_value.decode("utf-8", "replace") if h.raw_value else h.value for h in headers.headers
    }


def request_headers_of(message: pb.ProcessingRequest) -> RequestHeaders:
    """A request's headers, with what Envoy itself says of who sent them."""
    headers = RequestHeaders(headers_of(message.request_headers))
    headers.evidence = _evidence(message)
    return headers


def _evidence(message: pb.ProcessingRequest) -> Evidence:
    """What Envoy says of the caller; it is told to say anything only where that is trusted."""
    claims: dict[str, object] = {}
    for namespace, metadata in message.metadata_context.filter_metadata.items():
        if namespace not in _ENDPOINT_NAMESPACES:
            claims |= json_format.MessageToDict(metadata)
    certificate = ""
    for attributes in message.attributes.values():
        if SAN_ATTRIBUTE in attributes.fields:
            certificate = attributes.fields[SAN_ATTRIBUTE].string_value
    return Evidence(certificate, claims) if claims or certificate else NO_EVIDENCE


def cluster_of(message: pb.ProcessingRequest) -> str:
    """The cluster that the route chose; '' where Envoy did not say."""
    for attributes in message.attributes.values():
        if CLUSTER_ATTRIBUTE in attributes.fields:
            return str(attributes.fields[CLUSTER_ATTRIBUTE].string_value)
    return ""


def is_duplex(first: bytes) -> bool:
    """Whether the first message of an exchange announces a body in FULL_DUPLEX_STREAMED."""
    try:
        message = pb.ProcessingRequest.FromString(first)
    except DecodeError:
        return False
    return bool(message.protocol_config.request_body_mode == ProcessingMode.FULL_DUPLEX_STREAMED)


def wants_answers_back(first: pb.ProcessingRequest) -> bool:
    """Whether parts of the answer's body must be sent back as they are; also where nobody says."""
    if not first.HasField("protocol_config"):
        return True
    return bool(first.protocol_config.response_body_mode == ProcessingMode.FULL_DUPLEX_STREAMED)


def hears_answers(first: pb.ProcessingRequest) -> bool:
    """Whether the answer's body will be shown at all; also where nobody says."""
    config = first.protocol_config
    return not first.HasField("protocol_config") or config.response_body_mode != ProcessingMode.NONE


def subset_of(message: pb.ProcessingRequest) -> tuple[str, ...] | None:
    """The endpoints that the gateway allows, given as a list or as text with commas; None: all of them."""
    metadata = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in metadata or SUBSET_KEY not in metadata[SUBSET_NAMESPACE].fields:
        return None
    return _texts(metadata[SUBSET_NAMESPACE].fields[SUBSET_KEY])


def served_of(message: pb.ProcessingRequest) -> str:
    """The endpoint that serves, as `ip:port`; '' where Envoy does not say."""
    metadata = message.metadata_context.filter_metadata
    if LB_NAMESPACE not in metadata or SERVED_KEY not in metadata[LB_NAMESPACE].fields:
        return ""
    return str(metadata[LB_NAMESPACE].fields[SERVED_KEY].string_value)


def split(text: str) -> tuple[str, ...]:
    """The parts of a text with commas, without those that are empty."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def _texts(value: Value) -> tuple[str, ...]:
    if value.WhichOneof("kind") == "list_value":
        return tuple(item.string_value.strip() for item in value.list_value.values if item.string_value)
    return split(value.string_value)
