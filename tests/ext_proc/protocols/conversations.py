"""One conversation as clients of every protocol would send it, with an image and a tool that is called."""

from __future__ import annotations

import base64
from typing import Any

IMAGE = base64.b64encode(bytes(range(256)) * 8).decode()
DATA_URL = f"data:image/png;base64,{IMAGE}"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SYSTEM, QUESTION, RESULT, ANSWER = "Be kind.", "What is the weather here?", "14 degrees", "It is mild."

CHAT: dict[str, Any] = {
    "model": "m",
    "tools": [
        {
            "type": "function",
            "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA},
        }
    ],
    "messages": [
        {"role": "system", "content": SYSTEM},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": QUESTION},
                {"type": "image_url", "image_url": {"url": DATA_URL}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Kyiv"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
        {"role": "assistant", "content": ANSWER},
    ],
}

PARTS: dict[str, Any] = {
    "messages": [
        {"content": [{"text": SYSTEM, "type": "text"}], "role": "developer"},
        {
            "content": [
                {"text": QUESTION, "type": "text"},
                {"image_url": {"detail": "auto", "url": DATA_URL}, "type": "image_url"},
            ],
            "role": "user",
        },
        {
            "tool_calls": [
                {
                    "function": {"arguments": '{"city":"Kyiv"}', "name": "weather"},
                    "type": "function",
                    "id": "call_1",
                }
            ],
            "content": "",
            "role": "assistant",
        },
        {"content": [{"text": RESULT, "type": "text"}], "tool_call_id": "call_1", "role": "tool"},
        {"content": [{"text": ANSWER, "type": "text"}], "role": "assistant"},
    ],
    "tools": [
        {
            "function": {
                "parameters": SCHEMA,
                "description": "of a city",
                "name": "weather",
                "strict": False,
            },
            "type": "function",
        }
    ],
    "model": "m",
}
"""The same chat by a client that orders its keys otherwise and sends parts."""

ANTHROPIC: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": QUESTION},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": IMAGE},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I should ask.", "signature": "s"},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Kyiv"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": RESULT}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
    ],
}

RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": SYSTEM,
    "tools": [
        {
            "type": "function",
            "name": "weather",
            "description": "of a city",
            "parameters": SCHEMA,
            "strict": True,
        }
    ],
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": QUESTION},
                {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Kyiv"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": RESULT},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]},
    ],
}

SENT = [("chat", CHAT), ("chat", PARTS), ("messages", ANTHROPIC), ("responses", RESPONSES)]
"""Protocol and body."""
