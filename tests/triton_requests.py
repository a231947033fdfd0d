"""Requests and answers of TensorRT-LLM's tensors, with Triton's own gRPC client."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.grpc as triton


def inputs(text: str, max_tokens: int = 8, *, stream: bool = False) -> list[Any]:
    """A prompt and how it is to be answered."""
    made = [
        triton.InferInput("text_input", [1, 1], "BYTES"),
        triton.InferInput("max_tokens", [1, 1], "INT32"),
        triton.InferInput("stream", [1, 1], "BOOL"),
    ]
    made[0].set_data_from_numpy(np.array([[text.encode()]], dtype=object))
    made[1].set_data_from_numpy(np.array([[max_tokens]], dtype=np.int32))
    made[2].set_data_from_numpy(np.array([[stream]], dtype=bool))
    return made


def text_of(result: Any) -> str:
    """What an answer says; '' where it says nothing."""
    tensor = result.as_numpy("text_output")
    return "" if tensor is None else str(tensor[0, 0].decode())


def cached_tokens(result: Any) -> int:
    """How much of the prompt the emulated engine had in its cache."""
    return int(result.get_response().parameters["cached_tokens"].int64_param)
