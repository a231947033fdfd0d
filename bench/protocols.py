"""What reading a request costs: CPU of parse and block hashes, by protocol and body size, and at the worst.

    .venv/bin/python bench/protocols.py --seconds 0.3

One JSON object on stdout: microseconds for bodies that clients send, milliseconds for the largest bodies of
hostile shapes. Single process, nothing else measured; the lesser of three rounds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from ext_proc import protocols
from ext_proc.reader import reading
from fleet.errors import UnreadableRequestError
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = PickerSettings()
READING = reading(SETTINGS)
HASHER = PrefixHasher(b"bench", SETTINGS.block_bytes)
LARGEST = 8 << 20  # bytes that Envoy buffers by default
SIZES = (4_000, 32_000, 220_000, 1_000_000)
WORDS = "words and more, "


def text(size: int) -> str:
    """So many characters of prose."""
    return WORDS * (size // len(WORDS))


def turns(size: int) -> list[dict[str, Any]]:
    """A conversation of ten messages."""
    return [{"role": ("user", "assistant")[n % 2], "content": text(size // 10)} for n in range(10)]


def bodies(size: int) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """What to read, by name: path, body, headers."""
    chat = json.dumps({"model": "m", "messages": turns(size), "stream": True}).encode()
    messages = json.dumps({"model": "m", "system": "Be kind.", "messages": turns(size)}).encode()
    ids = json.dumps({"model": "m", "prompt": list(range(10_000, 10_000 + size // 7))}).encode()
    raw = size.to_bytes(4, "little") + text(size).encode()
    tensor = {"name": "text_input", "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return {
        "chat": ("/v1/chat/completions", chat, {}),
        "chat, gzip": ("/v1/chat/completions", gzip.compress(chat), {"content-encoding": "gzip"}),
        "messages": ("/v1/messages", messages, {}),
        "responses": ("/v1/responses", json.dumps({"input": turns(size)}).encode(), {}),
        "completions, token ids": ("/v1/completions", ids, {}),
        "generate": ("/v2/models/m/generate", json.dumps({"text_input": text(size)}).encode(), {}),
        "infer, binary": (
            "/v2/models/m/infer",
            head + raw,
            {"inference-header-content-length": str(len(head))},
        ),
    }


def hostile() -> dict[str, bytes]:
    """The largest bodies of shapes that are dear to read."""
    messages, parts = b'{"messages":[', b'{"messages":[{"role":"user","content":['
    units = {
        "lists": (messages, b"[],"),
        "objects": (messages, b"{},"),
        "messages": (messages, b'{"role":"u"},'),
        "unknown parts": (parts, b'{"type":"x"},'),
        "images": (parts, b'{"type":"image","image":"a"},'),
        "tools": (b'{"messages":[{}],"tools":[', b"{},"),
        "nested": (messages, b"[" * 150 + b"]" * 150 + b","),
        "long numbers": (messages, b"9" * 4000 + b","),
        "short numbers": (messages, b"1,"),
        "escapes": (messages + b'{"content":"', b"\\u4e00"),
        "arguments": (messages + b'{"tool_calls":[{"function":{"arguments":"', b"\\u005b]\\u002c"),
        "code": (messages + b'{"content":"', b'if (a[\\"x\\"]) { return b[1]; }\\n'),
        "emoji": (messages + b'{"content":"', "😀".encode()),
    }
    return {name: start + unit * (LARGEST // len(unit)) for name, (start, unit) in units.items()}


def read(path: str, body: bytes, headers: dict[str, str]) -> None:
    """Parse and hash, as for every request."""
    found = protocols.find("POST", path)
    if found is None:
        raise ValueError(path)
    try:
        prompt = found.parse(protocols.Call(path, headers, body, READING))
    except UnreadableRequestError:
        return
    root = HASHER.root("m", prompt.model, prompt.lora, prompt.cache_salt)
    HASHER.blocks(prompt.text[: SETTINGS.max_hashed_bytes], root)


def cost(call: Callable[[], None], seconds: float) -> float:
    """CPU seconds of one call: the lesser of three rounds, each `seconds` long or one call."""
    best = float("inf")
    for _ in range(3):
        began, calls = time.process_time(), 0
        while calls == 0 or time.process_time() - began < seconds:
            call()
            calls += 1
        best = min(best, (time.process_time() - began) / calls)
    return best


def usual_of(size: int, seconds: float) -> dict[str, float]:
    """Microseconds by what is read."""
    return {name: round(1e6 * cost(partial(read, *sent), seconds), 1) for name, sent in bodies(size).items()}


def worst_of(body: bytes) -> float:
    """Milliseconds."""
    return round(1e3 * cost(partial(read, "/v1/chat/completions", body, {}), 0.0), 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="per figure and round")
    seconds = parser.parse_args().seconds
    worst = {name: worst_of(body) for name, body in hostile().items()}
    micros = {str(size): usual_of(size, seconds) for size in SIZES}
    print(json.dumps({"microseconds": micros, "hostile_milliseconds": worst}, indent=2))


if __name__ == "__main__":
    main()
