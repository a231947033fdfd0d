from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fleet.errors import StartError
from tests.support import until
from xds_server.cache import SnapshotCache
from xds_server.metrics import XdsMetrics
from xds_server.server import SERVICE, serve_ads
from xds_server.snapshot import CLUSTER, ENDPOINT, Resource, Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def snapshot(body: bytes = b"\n\x01a") -> Snapshot:
    return Snapshot((Resource(ENDPOINT, "a", body),))


class Served:
    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.cache = SnapshotCache()
        self.metrics = XdsMetrics()
        self.address = address
        self.channel = channel

    def stream(self) -> Any:
        return self.channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")()

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    address = f"unix:{folder}/ads.sock"
    async with grpc.aio.insecure_channel(address) as channel:
        made = Served(address, channel)
        async with serve_ads(made.cache, made.metrics, address):
            yield made
    await asyncio.sleep(0.05)  # gRPC's own tasks end a little after their server


def request(type_url: str = ENDPOINT, **fields: Any) -> bytes:
    message = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=["a"], **fields)
    data: bytes = message.SerializeToString()
    return data


async def answer(stream: Any) -> Any:
    return discovery_pb2.DiscoveryResponse.FromString(await stream.read())


async def test_brings_a_waiting_client_its_first_and_its_next_snapshot(tmp_path: Path) -> None:
    async with served(tmp_path) as up:
        stream = up.stream()
        await stream.write(request())
        await asyncio.sleep(0.05)
        up.cache.publish(snapshot())
        first = await answer(stream)
        assert [bytes(r.value) for r in first.resources] == [b"\n\x01a"]
        up.cache.publish(snapshot(b"\n\x01b"))
        second = await answer(stream)
        assert [bytes(r.value) for r in second.resources] == [b"\n\x01b"]
        assert second.resources[0].type_url == ENDPOINT
        assert second.version_info != first.version_info
        assert up.sample("kvpilot_xds_streams") == 1
        await until(lambda: up.sample("kvpilot_xds_pushes_total", type="eds") == 2)
        stream.cancel()
        await until(lambda: up.sample("kvpilot_xds_streams") == 0)


async def test_a_refusal_is_counted_and_logged_with_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(tmp_path) as up:
        up.cache.publish(snapshot())
        stream = up.stream()
        await stream.write(request(node={"id": "envoy-7"}))
        first = await answer(stream)
        await stream.write(
            request(response_nonce=first.nonce, error_detail={"code": 3, "message": "bad weight"})
        )
        await until(lambda: up.sample("kvpilot_xds_nacks_total", type="eds") == 1)
    assert "envoy-7 refused eds" in caplog.text
    assert "bad weight" in caplog.text


@pytest.mark.parametrize("bad", [b"\xff\xff\xff", request(type_url="")])
async def test_nonsense_ends_its_own_stream_and_no_other(tmp_path: Path, bad: bytes) -> None:
    async with served(tmp_path) as up:
        up.cache.publish(snapshot())
        good, broken = up.stream(), up.stream()
        await good.write(request())
        await answer(good)
        await broken.write(bad)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await broken.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        up.cache.publish(snapshot(b"\n\x01b"))
        assert (await answer(good)).resources


async def test_a_client_that_leaves_is_let_go(tmp_path: Path) -> None:
    async with served(tmp_path) as up:
        up.cache.publish(snapshot())
        stream = up.stream()
        await stream.write(request())
        await answer(stream)
        await stream.done_writing()
        await until(lambda: up.sample("kvpilot_xds_streams") == 0)


async def test_other_types_are_let_pass(tmp_path: Path) -> None:
    async with served(tmp_path) as up:
        up.cache.publish(snapshot())
        stream = up.stream()
        await stream.write(request(type_url="type.googleapis.com/other.Thing"))
        await stream.write(request(type_url=CLUSTER))
        assert (await answer(stream)).type_url == CLUSTER


async def test_says_that_it_serves(tmp_path: Path) -> None:
    async with served(tmp_path) as up:
        stub = health_pb2_grpc.HealthStub(up.channel)
        for service in ("", SERVICE):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_taken_port_is_one_clear_error() -> None:
    async with serve_ads(SnapshotCache(), XdsMetrics(), "127.0.0.1:0") as port:
        with pytest.raises(StartError, match=rf"xds_address 127.0.0.1:{port}: cannot listen"):
            async with serve_ads(SnapshotCache(), XdsMetrics(), f"127.0.0.1:{port}"):
                pass
