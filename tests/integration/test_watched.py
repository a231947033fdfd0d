"""What can be seen of a real mesh: metrics, spans, logs and explanations; and no prompt in any of it."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from kvpilot.mesh import programs
from tests.integration.clients import CHAT, ask, client
from tests.integration.conftest import FLEET, MODEL, emulated, running_mesh
from tests.integration.test_failures import until_steering
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kvpilot.mesh import LocalMesh
    from kvpilot.mesh.supervisor import Program

pytestmark = [pytest.mark.timeout(90)]

PROMPT, SESSION = "canary-in-the-prompt", "canary-in-the-session"
IN_FLIGHT = "kvpilot_picker_endpoint_in_flight"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
SMALL = copy.deepcopy(FLEET)
SMALL["models"][0]["versions"] = [{"name": "stable", "pools": [emulated("h100", "H100-80GB", 2)]}]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Where spans may be sent, and what came."""
    received: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", received
    await runner.cleanup()


def chatty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the servers log all they can, as JSON."""
    quiet = programs.server

    def server(name: str, module: str, config: Path) -> Program:
        made = quiet(name, module, config)
        options = ("--log", "debug", "--log-format", "json") if name in ("picker", "xds") else ()
        return replace(made, argv=(*made.argv, *options))

    monkeypatch.setattr(programs, "server", server)


async def some_requests(mesh: LocalMesh) -> None:
    headers = {"x-session-id": SESSION, "traceparent": SAMPLED, "x-request-id": "asked-1"}
    async with client(mesh.url) as session:
        for n in range(4):
            answer = await ask(session, f"{PROMPT} {n} " * 200, headers=headers, streamed=n % 2 == 0)
            assert answer.whole
        async with session.post(CHAT, data=f"{{{PROMPT}", headers=headers) as response:
            assert response.status == 400
        await ask(session, PROMPT)  # in no trace


async def page(mesh: LocalMesh) -> dict[str, float]:
    """The picker's metrics."""
    url = f"http://{mesh.settings.picker_metrics}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    figures = {name: float(figure) for name, figure in pairs}
    per_endpoint = [f for name, f in figures.items() if name.startswith(f"{IN_FLIGHT}{{")]
    return {**figures, IN_FLIGHT: sum(per_endpoint)}  # the gauge of the whole is a second old


def spans_of(received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        span
        for message in received
        for resource in message["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


async def explained(mesh: LocalMesh, body: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kvpilot", "explain", str(body), "--json"),
        *("-c", str(mesh.runtime / "kvpilot.yaml")),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(out)
    return answer


async def test_what_happens_can_be_seen_and_no_prompt_or_session_is_in_it(
    receiver: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, received = receiver
    chatty(monkeypatch)
    async with running_mesh(SMALL, picker={"silence_seconds": 4, "tracing": url}) as mesh:
        await until_steering(mesh)

        async def nothing_is_in_flight() -> bool:
            return (await page(mesh))[IN_FLIGHT] == 0

        await until(nothing_is_in_flight)
        before = (await page(mesh))["kvpilot_picker_picks_total"]
        await some_requests(mesh)

        async def all_are_over() -> bool:
            return (await page(mesh))["kvpilot_picker_picks_total"] == before + 5

        await until(all_are_over, seconds=20)
        figures = await page(mesh)
        assert figures["kvpilot_picker_fallbacks_total"] == 0
        assert figures["kvpilot_picker_ttft_error_seconds_count"] == 2  # of the streamed ones
        assert figures["kvpilot_picker_actual_match_ratio_count"] >= 3  # where usage was told
        owed = [v for k, v in figures.items() if k.startswith("kvpilot_picker_endpoint_owed_tokens")]
        assert owed == [0, 0]

        body = tmp_path / "request.json"
        body.write_text(json.dumps({"messages": [{"role": "user", "content": f"{PROMPT} 0 " * 200}]}))
        answer = await explained(mesh, body)
        assert answer["source"] == "picker"
        assert answer["cluster"] == f"{MODEL}/stable"
        assert max(row["matched_tokens"] for row in answer["candidates"]) > 500
        after = await page(mesh)
        assert after[IN_FLIGHT] == 0  # nothing was booked
        assert after["kvpilot_picker_picks_total"] == before + 5

        await until(lambda: len(spans_of(received)) == 5, seconds=10)
        logs = {name: (mesh.logs / f"{name}.log").read_text() for name in ("picker", "xds")}
    spans = spans_of(received)
    assert {span["traceId"] for span in spans} == {TRACE}
    seen = json.dumps(spans)
    outcomes = [
        pair["value"]["stringValue"] for s in spans for pair in s["attributes"] if "outcome" in pair["key"]
    ]
    assert sorted(outcomes) == ["not-json", *["steered"] * 4]
    lines = [json.loads(line) for line in logs["picker"].splitlines()]
    picks = [line for line in lines if line["logger"] == "ext_proc.reporter" and "pick_id" in line]
    assert len(picks) >= 5
    assert all(line["request_id"] for line in picks)
    for text in (seen, *logs.values()):
        assert PROMPT not in text
        assert SESSION not in text
