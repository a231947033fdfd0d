from __future__ import annotations

import asyncio
import json

import pytest

from kvpilot.bench.upstream import RESPONSE, Answering
from kvpilot.mesh.ports import LOOPBACK

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n{    }"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("cut", [1, 7, 1000])
async def test_answers_each_request_once_however_it_is_cut(cut: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, LOOPBACK, 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        data = POST + GET + POST
        for start in range(0, len(data), cut):
            writer.write(data[start : start + cut])
            await writer.drain()
        assert await reader.readexactly(3 * len(RESPONSE)) == 3 * RESPONSE
        writer.close()
        await writer.wait_closed()


def test_tells_the_usage_of_its_answer() -> None:
    body = RESPONSE.partition(b"\r\n\r\n")[2]
    assert json.loads(body)["usage"]["completion_tokens"] == 1
