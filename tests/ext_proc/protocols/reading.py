"""Requests read as the picker reads them with default settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ext_proc import protocols
from ext_proc.reader import reading
from fleet.errors import UnreadableRequestError
from fleet.settings import PickerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ext_proc.request import Prompt

READING = reading(PickerSettings())
MEDIA = "m" * READING.media_bytes
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "messages": "/v1/messages",
    "generate": "/v2/models/ensemble/generate",
    "generate_stream": "/v2/models/ensemble/generate_stream",
    "infer": "/v2/models/ensemble/versions/1/infer",
    "kserve_grpc": "/inference.GRPCInferenceService/ModelInfer",
}


def parse(protocol: str, body: bytes | dict[str, Any], headers: Mapping[str, str] | None = None) -> Prompt:
    """The prompt of one request; a dict is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = protocols.find("POST", PATHS[protocol])
    assert found is not None
    return found.parse(protocols.Call(PATHS[protocol], headers or {}, data, READING))


def reason(protocol: str, body: bytes | dict[str, Any], headers: Mapping[str, str] | None = None) -> str:
    """Why a request cannot be read; '' where it can."""
    try:
        parse(protocol, body, headers)
    except UnreadableRequestError as error:
        return error.reason
    return ""
