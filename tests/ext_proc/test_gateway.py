"""The exchange with gateways over a real gRPC channel; Envoy itself is met in tests/integration."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ext_proc.gateway import Gateways
from ext_proc.health_service import EXT_PROC_SERVICE, LIVENESS_SERVICES, READINESS_SERVICES
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.pools import Pools
from ext_proc.reporter import Reporter
from ext_proc.request import RoutingRequest
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from fleet.errors import StartError
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings
from tests.ext_proc import messages
from tests.ext_proc.test_duplex import body, request_headers, response_headers
from tests.support import free_address, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ADDRESSES = {"a": "10.0.0.1:80", "b": "10.0.0.2:80"}
CHAT = b'{"messages": [{"role": "user", "content": "hi"}]}'


@pytest.fixture(autouse=True)
def _grpc_outlives_the_event_loop() -> Iterator[None]:
    """Otherwise the last server's end joins gRPC's poller thread inside the loop: a blocking call."""
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()


class Site:
    def __init__(self, mode: Any = "auto", **more: Any) -> None:
        versions = tuple(
            Version(name, 1, (Endpoint(address, "m", name, "p", Hardware("H100-80GB")),))
            for name, address in ADDRESSES.items()
        )
        fleet, settings = Fleet((Model("m", versions),)), PickerSettings()
        self.metrics = PickerMetrics()
        self.reporter = Reporter(self.metrics)
        self.picker = Picker(settings, fleet.endpoints.values())
        self.room = WaitingRoom(self.picker, 60, 8)
        steerer = Steerer(settings, fleet, PrefixHasher(b"k", 256), self.picker, self.room)
        self.gateways = Gateways(
            steerer,
            self.picker,
            self.room,
            self.reporter,
            self.metrics,
            Pools(fleet),
            mode=mode,
            **more,
        )
        self.service = PickerService(
            steerer, self.picker, self.room, self.metrics, reporter=self.reporter, gateways=self.gateways
        )

    def count(self, outcome: str) -> float:
        return float(self.metrics.requests.labels(outcome)._value.get())


@asynccontextmanager
async def serving(site: Site, **more: Any) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        serve_picker(site.service, "127.0.0.1:0", 1 << 20, **more) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        asyncio.TaskGroup() as tasks,
    ):
        running = tasks.create_task(site.service.dispatch())
        yield channel
        running.cancel()


def call(channel: grpc.aio.Channel) -> Any:
    made: Any = channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")()
    return made


async def ask(channel: grpc.aio.Channel, first: bytes) -> tuple[Any, pb.ProcessingResponse]:
    made = call(channel)
    await made.write(first)
    await made.write(body("request", CHAT, end=True))
    return made, pb.ProcessingResponse.FromString(await made.read())


def picked(answer: pb.ProcessingResponse) -> str:
    return str(answer.dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"])


async def test_serves_a_gateway_and_our_own_envoy_on_one_port() -> None:
    site = Site()
    async with serving(site) as channel:
        ours = call(channel)
        await ours.write(messages.headers(path="/v1/models"))
        assert pb.ProcessingResponse.FromString(await ours.read()).HasField("request_headers")
        assert await ours.read() is grpc.aio.EOF
        made, answer = await ask(channel, request_headers(subset=[ADDRESSES["b"]]))
        assert picked(answer) == ADDRESSES["b"]
        assert pb.ProcessingResponse.FromString(await made.read()).HasField("request_body")
        assert len(site.gateways) == 1
        await made.write(response_headers(served=ADDRESSES["b"], end=True))
        assert pb.ProcessingResponse.FromString(await made.read()).HasField("response_headers")
        assert await made.read() is grpc.aio.EOF
    assert (site.picker.in_flight, len(site.gateways)) == (0, 0)
    assert site.metrics.served.labels("picked")._value.get() == 1


async def test_takes_everybody_for_a_gateway_where_that_is_set() -> None:
    site = Site("always")
    async with serving(site) as channel:
        silent = pb.ProcessingRequest.FromString(request_headers(subset=[ADDRESSES["a"]]))
        silent.ClearField("protocol_config")
        _, answer = await ask(channel, silent.SerializeToString())
        assert picked(answer) == ADDRESSES["a"]


async def test_an_address_of_its_own_says_which_pool_is_meant_and_health_is_asked_elsewhere() -> None:
    site = Site()
    pools = {free_address(): "m/a", free_address(): "m/b"}
    health = free_address()
    async with serving(site, pool_addresses=pools, health_address=health) as main:
        for address, cluster in pools.items():
            async with grpc.aio.insecure_channel(address) as channel:
                _, answer = await ask(channel, request_headers())
                assert picked(answer) == ADDRESSES[cluster[-1]]
        _, answer = await ask(main, request_headers())  # which of the two, nobody says here
        assert answer.immediate_response.status.code == 503
        async with grpc.aio.insecure_channel(health) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in (*READINESS_SERVICES, *LIVENESS_SERVICES):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(channel, request_headers())  # nothing but health there


async def test_says_which_address_cannot_be_listened_on() -> None:
    with pytest.raises(StartError, match=r"endpoint_picker.health_address unix:/absent"):
        async with serving(Site(), health_address="unix:/absent/socket"):
            pass


async def test_holds_a_request_until_there_is_room_and_forgets_one_whose_gateway_leaves() -> None:
    site = Site()
    async with serving(site) as channel:
        huge = site.picker.pick(RoutingRequest((ADDRESSES["a"],), 10_000_000, (), 64), time.monotonic())
        assert huge is not None
        waiting, leaving = call(channel), call(channel)
        for each in (waiting, leaving):
            await each.write(request_headers(subset=[ADDRESSES["a"]]))
            await each.write(body("request", CHAT, end=True))
        await until(lambda: len(site.room) == 2)
        leaving.cancel()
        await until(lambda: len(site.room) == 1)
        site.picker.cancel(huge.id, time.monotonic())
        assert picked(pb.ProcessingResponse.FromString(await waiting.read())) == ADDRESSES["a"]
        assert site.picker.in_flight == 1
        waiting.cancel()
        await until(lambda: site.picker.in_flight == 0)


@pytest.mark.parametrize(
    ("served", "by"), [(ADDRESSES["a"], "picked"), ("10.9.9.9:80", "other"), ("", "unknown")]
)
async def test_counts_whether_the_gateway_obeyed(served: str, by: str) -> None:
    site = Site()
    async with serving(site) as channel:
        made, _ = await ask(channel, request_headers(subset=[ADDRESSES["a"]]))
        await made.write(response_headers(served=served, end=True))
        while await made.read() is not grpc.aio.EOF:
            pass
    assert site.metrics.served.labels(by)._value.get() == 1
    assert site.picker.in_flight == 0


@pytest.mark.parametrize("held", [False, True])
async def test_how_a_request_ends_is_told_with_its_name_and_then_forgotten(
    held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    busy = site.picker.pick(RoutingRequest((ADDRESSES["a"],), 10_000_000, (), 64), time.monotonic())
    assert busy is not None
    if not held:
        site.picker.cancel(busy.id, time.monotonic())
    async with serving(site) as channel:
        with caplog.at_level(logging.INFO, logger="ext_proc.reporter"):
            made = call(channel)
            await made.write(request_headers(subset=[ADDRESSES["a"]], x_request_id="req-1"))
            await made.write(body("request", CHAT, end=True))
            if held:
                await until(lambda: len(site.room) == 1)
                site.picker.cancel(busy.id, time.monotonic())
            assert picked(pb.ProcessingResponse.FromString(await made.read())) == ADDRESSES["a"]
            await made.write(response_headers("503", served=ADDRESSES["a"], end=True))
            while await made.read() is not grpc.aio.EOF:
                pass
            await until(lambda: not len(site.gateways))
    (line,) = (record for record in caplog.records if record.getMessage() == "failed at its endpoint")
    assert line.__dict__["facts"]["request_id"] == "req-1"
    assert not site.reporter._request_ids
    assert site.count("steered") == 1


class NamedCall:
    """A call whose transport shows what the gateway asked for."""

    def __init__(self, authority: str | None) -> None:
        self._authority = authority
        self._messages: list[object] = [body("request", CHAT, end=True)]
        self.written: list[bytes] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._authority is None else ((":authority", self._authority),)

    async def read(self) -> object:
        return self._messages.pop() if self._messages else grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        self.written.append(data)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [("pool-a.llm.svc:9002", "a"), ("pool-b", "b"), ("pool-b:1", "b"), ("other", None), (None, None)],
)
async def test_the_name_that_a_gateway_asks_for_says_which_pool_is_meant(
    authority: str | None, expected: str | None
) -> None:
    site = Site(authorities={"pool-a.llm.svc": "m/a", "pool-b": "m/b"})
    call = NamedCall(authority)
    await site.gateways.process(request_headers(), call, "", site.service)
    first = pb.ProcessingResponse.FromString(call.written[0])
    if expected is None:
        assert first.immediate_response.status.code == 503
    else:
        assert picked(first) == ADDRESSES[expected]
    assert site.picker.in_flight == 0
