"""The picker as the endpoint picker of a gateway: a real Envoy that sends everything and gets it back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest

from ext_proc.request import RoutingRequest
from tests.integration.gateway import CHAT, USAGE, gateway
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway import Gateway

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _grpc_outlives_the_event_loop() -> Iterator[None]:
    """Otherwise the last server's end joins gRPC's poller thread inside the loop: a blocking call."""
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()


def chat(content: str, *, stream: bool = False) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}], "stream": stream}).encode()


def served(up: Gateway) -> Counter[str]:
    kinds = ("picked", "listed", "other", "unknown")
    return Counter({by: int(up.picker.served(by)) for by in kinds if up.picker.served(by)})


async def nothing_in_flight(up: Gateway) -> None:
    await until(lambda: up.picker.picker.in_flight == 0 and len(up.picker.gateways) == 0)


async def test_answers_and_bodies_pass_whole_whatever_their_size(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        before = served(up)
        for size in (10, 4_000, 70_000, 220_000, 3_000_000):
            for stream in (False, True):
                body = chat("x" * size, stream=stream)
                status, _, answer = await up.ask(body)
                assert status == 200
                said = json.loads(answer.partition(b"\n")[0].removeprefix(b"data: "))
                assert said["bytes"] == len(body)
                assert said["sha256"] == hashlib.sha256(body).hexdigest()
                if stream:
                    assert answer.count(b"data: ") == 5
                    assert answer.endswith(b"data: [DONE]\n\n")
        await nothing_in_flight(up)
        assert served(up) - before == {"picked": 10}
        assert up.picker.count("steered") == 10


async def test_the_same_beginning_goes_to_the_same_endpoint_and_is_told_twice(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        text = "word " * 4000
        first = json.loads((await up.ask(chat(text)))[2])["endpoint"]
        for n in range(4):
            await nothing_in_flight(up)  # the answer is here before the picker hears that it is over
            spoofed = {"x_gateway_destination_endpoint": "127.0.0.1:9"}
            assert json.loads((await up.ask(chat(f"{text} {n}"), **spoofed))[2])["endpoint"] == first
        (engine,) = [engine for engine in up.engines if engine.address == first]
        # The header names the pick, whatever the client wrote there.
        assert all(h["x-gateway-destination-endpoint"].split(",")[0] == first for h in engine.headers[-4:])
        await nothing_in_flight(up)


async def test_picks_only_among_the_endpoints_that_the_gateway_allows(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        addresses = [engine.address for engine in up.engines]
        for n in range(5):
            for subset, allowed in (("list", addresses[2:]), ("text", addresses[1:])):
                status, _, answer = await up.ask(chat(f"{n} " * 500), subset)
                assert status == 200
                assert json.loads(answer)["endpoint"] in allowed
        for subset in ("empty", "strangers"):
            for path in (CHAT, "/v1/models"):
                status, headers, _ = await up.ask(chat("hi"), subset, path)
                assert status == 503
                assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
        await nothing_in_flight(up)
        assert up.picker.count("no-endpoint") == 4


async def test_what_cannot_be_read_and_what_has_no_body_gets_an_endpoint_too(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        before = served(up)
        for body, path in ((b"{", CHAT), (b"", CHAT), (b"x" * 300_000, "/v2/repository/index")):
            status, _, answer = await up.ask(body, path=path)
            assert status == 200
            assert json.loads(answer)["sha256"] == hashlib.sha256(body).hexdigest()
        async with aiohttp.ClientSession(up.urls["all"]) as session, session.get("/v1/models") as response:
            assert response.status == 200
        await nothing_in_flight(up)
        assert served(up) - before == {"picked": 4}


async def test_learns_from_what_passes_by(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        assert json.loads((await up.ask(chat("x" * 8000)))[2])["usage"] == USAGE
        await up.ask(chat("y" * 8000, stream=True))
        await nothing_in_flight(up)
        seen = list(up.picker.picker.traffic(0.0).values())
        (ttft,) = [traffic.ttft_p50 for traffic in seen if traffic.ttft_p50 is not None]  # the streamed one's
        assert ttft >= 0.1  # the first event came so late, the headers at once
        assert [t.match_ratio for t in seen if t.match_ratio]  # cached tokens, as the engines told


async def test_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        async with aiohttp.ClientSession(up.urls["all"]) as session:
            body = chat("for ever", stream=True)
            async with session.post(CHAT, data=body) as response:
                assert await response.content.readline()
                assert up.picker.picker.in_flight == 1
        await nothing_in_flight(up)
        await until(lambda: sum(engine.left for engine in up.engines) == 1)
        with pytest.raises(TimeoutError):
            async with (
                aiohttp.ClientSession(up.urls["all"]) as session,
                asyncio.timeout(0.3),
                session.post(CHAT, data=_never_ends()) as response,
            ):
                await response.read()
        await nothing_in_flight(up)


async def _never_ends() -> object:
    yield b'{"messages": ['
    await asyncio.sleep(60)


async def test_an_open_answer_stays_in_the_ledger(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, silence_seconds=1.5) as up:
        async with (
            aiohttp.ClientSession(up.urls["all"]) as session,
            session.post(CHAT, data=chat("for ever", stream=True)) as response,
        ):
            await response.content.readline()
            await asyncio.sleep(2.5)
            up.picker.picker.expire(time.monotonic())
            assert up.picker.picker.in_flight == 1
        await nothing_in_flight(up)


async def test_the_conformance_tests_choose_an_endpoint_and_are_told_who_served(tmp_path: Path) -> None:
    async with gateway(tmp_path, test_headers=True) as up:
        for engine in up.engines:
            status, headers, answer = await up.ask(chat("hi"), test_epp_endpoint_selection=engine.address)
            assert status == 200
            assert json.loads(answer)["endpoint"] == engine.address
            assert headers["x-conformance-test-served-endpoint"] == engine.address
        status, headers, _ = await up.ask(chat("hi"), test_epp_endpoint_selection="10.9.9.9")
        assert status == 503
    other = tmp_path / "off"
    other.mkdir()
    async with gateway(other) as up:
        _, headers, _ = await up.ask(chat("hi"), test_epp_endpoint_selection="10.9.9.9")
        assert "x-conformance-test-served-endpoint" not in headers


async def test_a_client_that_leaves_while_its_request_is_held_frees_its_place(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        picker, addresses = up.picker.picker, [engine.address for engine in up.engines]
        huge = [picker.pick(RoutingRequest((a,), 10_000_000, (), 64), time.monotonic()) for a in addresses]
        with pytest.raises(TimeoutError):
            async with (
                aiohttp.ClientSession(up.urls["all"]) as session,
                asyncio.timeout(0.5),
                session.post(CHAT, data=chat("hi")) as response,
            ):
                await response.read()
        await until(lambda: len(up.picker.room) == 0)
        asking = asyncio.create_task(up.ask(chat("hi")))
        await until(lambda: len(up.picker.room) == 1)
        for decision in huge:
            assert decision is not None
            picker.cancel(decision.id, time.monotonic())
        assert (await asking)[0] == 200
        await nothing_in_flight(up)


async def test_a_dead_endpoint_is_stepped_over_and_the_picker_hears_who_served(tmp_path: Path) -> None:
    async with gateway(tmp_path) as up:
        text = "word " * 4000
        first = json.loads((await up.ask(chat(text)))[2])["endpoint"]
        (dead,) = [engine for engine in up.engines if engine.address == first]
        await dead.stop()
        await nothing_in_flight(up)
        before = served(up)
        status, _, answer = await up.ask(chat(f"{text} more"))
        assert status == 200
        assert json.loads(answer)["endpoint"] != first
        await nothing_in_flight(up)
        assert served(up) - before == {"listed": 1}
