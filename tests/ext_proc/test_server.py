"""The picker over a real gRPC channel; Envoy itself is met in tests/integration."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest

from ext_proc.admission.refusal import Refusal
from ext_proc.health_service import EXT_PROC_SERVICE
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from ext_proc.server import ACCESS_LOG_SERVICE, PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from ext_proc.watchdog import Standing, Watchdog
from fleet.errors import StartError
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings
from tests.ext_proc.messages import ADDRESS, body, entry, headers
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fleet.settings import Transport

ENDPOINT = Endpoint(ADDRESS, "llama", "stable", "p", Hardware("H100-80GB"))
FLEET = Fleet((Model("llama", (Version("stable", 100, (ENDPOINT,)),)),))
LARGEST = 6 << 20


class Served:
    def __init__(self, watchdog: Watchdog | None = None) -> None:
        settings = PickerSettings()
        self.metrics = PickerMetrics()
        self.picker = Picker(settings, FLEET.endpoints.values())
        hasher = PrefixHasher(b"k", settings.block_bytes)
        self.room = WaitingRoom(self.picker, longest=settings.hold_seconds, places=settings.held_max)
        self.steerer = Steerer(settings, FLEET, hasher, self.picker, self.room)
        self.service = PickerService(self.steerer, self.picker, self.room, self.metrics, watchdog)

    def count(self, outcome: str) -> float:
        return float(self.metrics.requests.labels(outcome)._value.get())


@pytest.fixture(autouse=True)
def _clients_are_gone() -> Iterator[None]:
    """gRPC's client takes a lock when it is collected; that must not happen inside our server's code."""
    yield
    gc.collect()


@pytest.fixture(params=["grpc", "http2"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Served, grpc.aio.Channel]]:
    made = Served()
    options = [("grpc.max_send_message_length", -1)]
    async with (
        serve_picker(made.service, "127.0.0.1:0", LARGEST, transport=request.param) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
        asyncio.TaskGroup() as tasks,
    ):
        dispatching = tasks.create_task(made.service.dispatch())
        yield made, channel
        dispatching.cancel()


def chat(content: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


async def test_steers_and_closes_the_stream_after_its_last_reply(
    served: tuple[Served, grpc.aio.Channel],
) -> None:
    made, channel = served
    call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    await call.write(headers(path="/v1/chat/completions"))
    assert pb.ProcessingResponse.FromString(await call.read()).HasField("request_headers")
    await call.write(body(chat("hello")))
    answer = pb.ProcessingResponse.FromString(await call.read())
    assert answer.dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"] == ADDRESS
    assert await call.read() is grpc.aio.EOF  # although the client never half-closed
    assert await call.code() is grpc.StatusCode.OK
    assert made.count("steered") == 1


async def test_explains_its_decisions_where_debugging_is_asked_for(
    served: tuple[Served, grpc.aio.Channel], caplog: pytest.LogCaptureFixture
) -> None:
    _, channel = served
    with caplog.at_level("DEBUG", logger="ext_proc.reporter"):
        call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
        await call.write(headers(path="/v1/chat/completions"))
        await call.write(body(chat("a secret")))
        while await call.read() is not grpc.aio.EOF:
            pass
    (record,) = [record for record in caplog.records if record.name == "ext_proc.reporter"]
    assert ADDRESS in record.message
    assert "lowest cost" in record.message
    assert "secret" not in record.message


async def test_takes_the_largest_body_that_envoy_buffers(served: tuple[Served, grpc.aio.Channel]) -> None:
    _, channel = served
    call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    await call.write(headers(path="/v1/chat/completions"))
    await call.read()
    await call.write(body(chat("x" * LARGEST)))
    assert pb.ProcessingResponse.FromString(await call.read()).HasField("dynamic_metadata")
    assert await call.read() is grpc.aio.EOF


async def test_learns_from_the_access_log_and_counts_strangers(
    served: tuple[Served, grpc.aio.Channel],
) -> None:
    made, channel = served
    call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    await call.write(headers(path="/v1/chat/completions"))
    await call.read()
    await call.write(body(chat("hello")))
    answer = pb.ProcessingResponse.FromString(await call.read())
    assert made.picker.in_flight == 1
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry(answer.dynamic_metadata["kvpilot"]["pick_id"]))
    message.http_logs.log_entry.append(entry("forged"))
    logs: Any = channel.stream_unary(f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs")()
    await logs.write(message.SerializeToString())
    await logs.write(b"\xff not a message")
    await logs.done_writing()
    await logs
    assert made.picker.in_flight == 0
    assert made.metrics.log_entries.labels("applied")._value.get() == 1
    assert made.metrics.log_entries.labels("dropped")._value.get() == 1


async def test_counts_a_request_that_is_given_up_half_way(served: tuple[Served, grpc.aio.Channel]) -> None:
    made, channel = served
    call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    await call.write(headers(path="/v1/chat/completions"))
    await call.read()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert made.count("aborted") == 1
    assert made.picker.in_flight == 0


class LeavingEnvoy:
    """A stream that its other side ends while the decision is written to it.

    Envoy does so where it needs nothing more, which is where it has got the decision; or the client has left.
    """

    def __init__(self) -> None:
        self._messages = [headers(path="/v1/chat/completions"), body(chat("hello"))]

    async def read(self) -> bytes:
        return self._messages.pop(0)

    async def write(self, data: bytes) -> None:
        if pb.ProcessingResponse.FromString(data).HasField("dynamic_metadata"):
            raise asyncio.CancelledError


async def test_keeps_its_decision_where_envoy_ends_the_exchange_with_it_until_no_log_speaks_of_it() -> None:
    made = Served()
    with pytest.raises(asyncio.CancelledError):
        await made.service._process(None, LeavingEnvoy())  # type: ignore[arg-type]
    assert made.picker.in_flight == 1
    assert made.count("steered") == 1
    made.picker.expire(time.monotonic() + PickerSettings().silence_seconds)
    assert made.picker.in_flight == 0


class DeafEnvoy:
    """A stream whose other side takes no answer."""

    async def read(self) -> bytes:
        return headers(path="/v1/chat/completions")

    async def write(self, _: bytes) -> None:
        await asyncio.Event().wait()


async def test_a_pick_that_hangs_shows_in_the_watchdog_until_it_is_gone() -> None:
    watchdog = Watchdog(pick_seconds=0.05, hold_seconds=1.0)
    watchdog.ready = True
    made = Served(watchdog)
    handling = asyncio.ensure_future(made.service._process(None, DeafEnvoy()))  # type: ignore[arg-type]
    await until(lambda: watchdog.look(time.monotonic()) is Standing.HANGING)
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    assert (len(watchdog.picks), len(watchdog.holds)) == (0, 0)


async def test_what_is_held_on_purpose_is_no_hanging_pick() -> None:
    watchdog = Watchdog(pick_seconds=0.05, hold_seconds=60.0)
    watchdog.ready = True
    made = Served(watchdog)
    fill_the_only_endpoint(made)
    handling = asyncio.ensure_future(made.service._process(None, LeavingEnvoy()))  # type: ignore[arg-type]
    await until(lambda: len(watchdog.holds) == 1)
    later = time.monotonic() + 30
    assert {watchdog.look(later) for _ in range(5)} == {Standing.SERVING}
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    assert (len(watchdog.picks), len(watchdog.holds)) == (0, 0)


def fill_the_only_endpoint(made: Served) -> str:
    """A prompt that keeps it busy for minutes; the id of its pick."""
    tokens = 10_000_000
    decision = made.picker.pick(RoutingRequest((ADDRESS,), tokens, (), 64), time.monotonic())
    assert decision is not None
    return decision.id


async def ask(channel: grpc.aio.Channel) -> Any:
    call: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    await call.write(headers(path="/v1/chat/completions"))
    await call.read()
    await call.write(body(chat("hello")))
    return call


async def test_holds_a_request_until_the_only_queue_is_short(served: tuple[Served, grpc.aio.Channel]) -> None:
    made, channel = served
    first = fill_the_only_endpoint(made)
    call = await ask(channel)
    word = pb.ProcessingResponse.FromString(await call.read())
    assert word.HasField("override_message_timeout")
    await until(lambda: made.metrics.held._value.get() == 1)
    assert made.picker.in_flight == 1
    made.picker.cancel(first, time.monotonic())
    answer = pb.ProcessingResponse.FromString(await call.read())
    assert answer.dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"] == ADDRESS
    assert await call.read() is grpc.aio.EOF
    assert (made.picker.in_flight, len(made.room), made.metrics.held._value.get()) == (1, 0, 0)
    assert made.count("steered") == 1


async def test_forgets_a_held_request_whose_client_leaves(served: tuple[Served, grpc.aio.Channel]) -> None:
    made, channel = served
    first = fill_the_only_endpoint(made)
    call = await ask(channel)
    await call.read()
    assert len(made.room) == 1
    call.cancel()
    await until(lambda: len(made.room) == 0)
    made.picker.cancel(first, time.monotonic())
    assert made.count("abandoned") == 1
    assert made.picker.in_flight == 0


async def test_keeps_what_a_held_request_got_where_envoy_ends_the_exchange_with_it() -> None:
    made = Served()
    first = fill_the_only_endpoint(made)
    envoy = LeavingEnvoy()
    handling = asyncio.ensure_future(made.service._process(None, envoy))  # type: ignore[arg-type]
    await until(lambda: len(made.room) == 1)
    made.picker.cancel(first, time.monotonic())
    made.room.dispatch(time.monotonic())
    assert made.picker.in_flight == 1
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert made.picker.in_flight == 1
    assert made.count("steered") == 1


async def test_takes_back_what_a_held_request_got_where_its_client_left_before_it_was_told() -> None:
    made = Served()
    first = fill_the_only_endpoint(made)
    handling = asyncio.ensure_future(made.service._process(None, LeavingEnvoy()))  # type: ignore[arg-type]
    await until(lambda: len(made.room) == 1)
    made.picker.cancel(first, time.monotonic())
    made.room.dispatch(time.monotonic())
    assert made.picker.in_flight == 1
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert made.picker.in_flight == 0
    assert made.count("abandoned") == 1


async def test_answers_health_checks_until_it_stops(served: tuple[Served, grpc.aio.Channel]) -> None:
    _, channel = served
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", EXT_PROC_SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("transport", ["grpc", "http2"])
async def test_says_in_one_line_that_an_address_cannot_be_listened_on(
    tmp_path: Path, transport: Transport
) -> None:
    with pytest.raises(StartError, match=r"picker_address unix:.*cannot listen"):
        async with serve_picker(
            Served().service, f"unix:{tmp_path}/absent/picker.sock", LARGEST, transport=transport
        ):
            pass


async def test_counts_who_was_refused_by_name_only_where_the_settings_name_the_tenant() -> None:
    made = Served()
    service = PickerService(made.steerer, made.picker, made.room, made.metrics, tenants=frozenset({"known"}))
    for tenant in ("known", "somebody", "somebody else", ""):
        service.count_refused(Refusal("budget", 1, "llama", 0, tenant))
    assert made.metrics.shed.labels("llama", "budget", "0")._value.get() == 4
    by_tenant = made.metrics.shed_by_tenant
    assert by_tenant.labels("known")._value.get() == 1
    assert by_tenant.labels("other")._value.get() == 3
    assert "somebody" not in generate_latest(made.metrics.registry).decode()


async def test_a_request_that_has_to_make_room_while_it_is_held_is_answered_at_once(
    served: tuple[Served, grpc.aio.Channel],
) -> None:
    made, channel = served
    first = fill_the_only_endpoint(made)
    call = await ask(channel)
    await call.read()
    (waiting,) = made.room._held
    made.room._remove(waiting)
    waiting.settle(None, Refusal("displaced", 3, "llama", 0))
    answer = pb.ProcessingResponse.FromString(await call.read())
    assert answer.immediate_response.status.code == 429
    assert await call.read() is grpc.aio.EOF
    assert made.count("refused") == 1
    assert made.metrics.shed.labels("llama", "displaced", "0")._value.get() == 1
    made.picker.cancel(first, time.monotonic())
    assert made.picker.in_flight == 0
