from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web

from ext_proc import explain_page
from ext_proc.picker import Picker
from tests.ext_proc.test_steer import CHAT, FLEET, SETTINGS, chat, make_steerer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([explain_page.route(make_steerer(Picker(SETTINGS, FLEET.endpoints.values())))])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}{explain_page.PATH}"
    await runner.cleanup()


async def post(url: str, data: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
    async with ClientSession() as session, session.post(url, data=data, headers=headers) as response:
        return response.status, await response.text()


QUESTION = explain_page.question("llama/stable", CHAT, {"x-session-id": "s"}, chat("hi"))


async def test_answers_a_question_from_the_same_machine(url: str) -> None:
    status, text = await post(url, QUESTION)
    assert status == 200
    assert len(json.loads(text)["candidates"]) == 4


@pytest.mark.parametrize("header", explain_page.PASSED_ON)
async def test_does_not_answer_what_a_proxy_passed_on(url: str, header: str) -> None:
    assert (await post(url, QUESTION, {header: "10.0.0.9"}))[0] == 403


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"cluster": "c", "path": "p", "headers": {}, "body": "not base64!"}',
        b'{"cluster": 1, "path": "p", "headers": {}, "body": ""}',
        b'{"cluster": "c", "path": "p", "headers": [], "body": ""}',
        b'{"cluster": "c", "path": "p", "headers": {"a": 1}, "body": ""}',
    ],
)
async def test_what_is_no_question_is_said_to_be_none(url: str, data: bytes) -> None:
    status, text = await post(url, data)
    assert status == 400
    assert "expected JSON" in text
