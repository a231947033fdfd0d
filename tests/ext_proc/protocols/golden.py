"""Requests whose canonical prompts and block hashes are written down in `golden.json`.

A changed canonical form or hash makes replicas of two versions disagree, and every cache cold to the picker:
it must never change unnoticed. `python -m tests.ext_proc.protocols.golden` writes the file anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fleet.prefix import PrefixHasher
from tests.ext_proc.protocols.conversations import ANTHROPIC, CHAT, PARTS, RESPONSES
from tests.ext_proc.protocols.reading import parse

FILE = Path(__file__).with_name("golden.json")
HASHER = PrefixHasher(b"the golden key", 256)
LONG = "A mesh is a net of proxies. " * 40

_TENSOR = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": [LONG]}
_RAW = len(LONG).to_bytes(4, "little") + LONG.encode()
_HEAD = json.dumps(
    {"inputs": [{"name": "text_input", "datatype": "BYTES", "parameters": {"binary_data_size": len(_RAW)}}]}
).encode()

REQUESTS: dict[str, tuple[str, bytes | dict[str, Any], dict[str, str]]] = {
    "chat": ("chat", CHAT, {}),
    "chat in parts": ("chat", PARTS, {}),
    "chat by ids": ("chat", {"prompt_token_ids": list(range(300))}, {}),
    "chat with emoji": ("chat", {"messages": [{"role": "user", "content": "😀é\u0000\n" * 100}]}, {}),
    "chat with documents": (
        "chat",
        {"messages": [{"role": "user", "content": LONG}], "documents": [{"text": "a", "id": 1}]},
        {},
    ),
    "completion": ("completions", {"prompt": LONG}, {}),
    "completions": ("completions", {"prompt": [LONG, "b"]}, {}),
    "completion by ids": ("completions", {"prompt": list(range(300))}, {}),
    "responses": ("responses", RESPONSES, {}),
    "response": ("responses", {"input": LONG}, {}),
    "messages": ("messages", ANTHROPIC, {}),
    "embeddings": ("embeddings", {"input": [LONG, LONG]}, {}),
    "generate": ("generate", {"text_input": LONG, "max_tokens": 4}, {}),
    "generate_stream": ("generate_stream", {"text_input": LONG}, {}),
    "infer": ("infer", {"inputs": [_TENSOR]}, {}),
    "infer by ids": ("infer", {"inputs": [{"name": "input_ids", "data": [list(range(300))]}]}, {}),
    "infer binary": ("infer", _HEAD + _RAW, {"inference-header-content-length": str(len(_HEAD))}),
}


def vector(name: str) -> dict[str, Any]:
    """What `golden.json` says of one request."""
    prompt = parse(*REQUESTS[name])
    return {
        "bytes": len(prompt.text),
        "sha256": hashlib.sha256(prompt.text).hexdigest(),
        "tokens": prompt.tokens,
        "blocks": HASHER.blocks(prompt.text, HASHER.root("model", prompt.model)),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: vector(name) for name in REQUESTS}, indent=1) + "\n")
