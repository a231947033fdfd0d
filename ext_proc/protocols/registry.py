"""Which protocol a request speaks, by its method and path."""

from __future__ import annotations

from ext_proc.protocols import (
    chat,
    completions,
    embeddings,
    kserve_grpc,
    messages,
    responses,
    triton,
)
from ext_proc.protocols.call import Protocol
from fleet.names import KSERVE_INFER

_BY_ENDING = {
    "/v1/chat/completions": Protocol("chat", chat.read),
    "/v1/completions": Protocol("completions", completions.read),
    "/v1/responses": Protocol("responses", responses.read),
    "/v1/embeddings": Protocol("embeddings", embeddings.read),
    "/v1/messages": Protocol("messages", messages.read),
}
"""By the end of the path: gateways put prefixes before it."""

_BY_VERB = {
    "generate": Protocol("generate", triton.read_generate),
    "generate_stream": Protocol("generate_stream", triton.read_generate_stream),
    "infer": Protocol("infer", triton.read_infer),
}
"""Triton's, whose paths name the model."""

_KSERVE_GRPC = Protocol("kserve_grpc", kserve_grpc.read)

NAMES = frozenset(protocol.name for protocol in (*_BY_ENDING.values(), *_BY_VERB.values(), _KSERVE_GRPC))
"""Every protocol's name."""


def find(method: str, path: str) -> Protocol | None:
    """The protocol of a request; None for what is not read here and passes through untouched."""
    if method != "POST":
        return None
    bare = path.partition("?")[0]
    exact = _BY_ENDING.get(bare)
    if exact is not None:
        return exact
    if "/v1/" in bare:
        for ending, protocol in _BY_ENDING.items():
            if bare.endswith(ending):
                return protocol
    if bare.endswith(KSERVE_INFER):
        return _KSERVE_GRPC
    matched = triton.PATH.search(bare)
    return None if matched is None else _BY_VERB[matched["verb"]]
