"""The server against a real Envoy 1.40: what it accepts, and what its requests then do."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from fleet.model import Rate
from fleet.names import ENDPOINT_HEADER, FIRST_BODY_TAG, USAGE_NAMESPACE, VERSION_HEADER
from fleet.settings_file import parse
from fleet.store.memory import MemoryStore
from tests.support import free_address, until
from tests.xds_server.local_mesh import Engine, Envoy, Picker, envoy
from xds_server.app import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fleet.settings import Settings


@dataclass
class Mesh:
    """A running xDS server and Envoy."""

    envoy: Envoy
    url: str
    client: aiohttp.ClientSession
    picker: Picker
    store: MemoryStore
    settings: Settings

    async def get(self, path: str = "/", **headers: str) -> aiohttp.ClientResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(self.url + path, headers=names) as response:
            await response.read()
            return response

    async def served_by(self, requests: int) -> Counter[str]:
        answers = [(await self.get()).headers[ENDPOINT_HEADER] for _ in range(requests)]
        return Counter(answers)


def pool(name: str, *engines: Engine) -> dict[str, Any]:
    addresses = [engine.address for engine in engines]
    return {"name": name, "gpu": "H100-80GB", "engine": "trtllm-serve", "endpoints": addresses}


def settings(versions: list[dict[str, Any]], folder: Path, **more: Any) -> Settings:
    return parse(
        {
            "listen": free_address(),
            "xds_address": free_address(),
            "picker_address": f"unix:{folder}/picker.sock",
            "models": [{"name": "m", "versions": versions}],
            "collect": {"interval_seconds": 0.1, "timeout_seconds": 2, "failures_to_eject": 2},
            "weights": {"interval_seconds": 0.1, "smoothing": 1.0},
            "envoy": {"debug_headers": True, "log_interval_seconds": 0.05},
            **more,
        },
        "test",
    )


def stable(*engines: Engine) -> list[dict[str, Any]]:
    return [{"name": "stable", "pools": [pool(f"p{i}", engine) for i, engine in enumerate(engines)]}]


@asynccontextmanager
async def xds(config: Settings, store: MemoryStore) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(config, store, stop))
        try:
            yield
        finally:
            stop.set()
            await task


@asynccontextmanager
async def mesh(config: Settings, folder: Path) -> AsyncIterator[Mesh]:
    store = MemoryStore()
    async with xds(config, store), running(config, folder, store) as started:
        yield started


@asynccontextmanager
async def running(config: Settings, folder: Path, store: MemoryStore) -> AsyncIterator[Mesh]:
    picker = Picker(config.picker_address)
    started_envoy = envoy(folder, config.xds_address)
    async with picker.serving(), started_envoy as started, aiohttp.ClientSession() as client:
        made = Mesh(started, f"http://{config.listen}", client, picker, store, config)
        await until(lambda: answers(made))
        yield made


async def answers(started: Mesh) -> bool:
    try:
        return (await started.get()).status == 200
    except aiohttp.ClientError:
        return False


def shares(counts: Counter[str], engines: list[Engine]) -> list[float]:
    return [counts[e.address] / counts.total() for e in engines]


def rejections(stats: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in stats.items() if k.endswith(("update_rejected", "update_failure")) and v != "0"}


async def test_splits_requests_by_the_computed_weights(engines: list[Engine], tmp_path: Path) -> None:
    config = settings(stable(*engines), tmp_path, steering="weighted")
    async with mesh(config, tmp_path) as up:
        rates = (3000.0, 1500.0, 1500.0)
        learned = {e.address: Rate(r, 0.01, time.time(), 5) for e, r in zip(engines, rates, strict=True)}
        before = await up.envoy.stats()
        await up.store.write("m", learned)
        await until(lambda: changed(up.envoy, "cluster.m/stable.update_success", before))
        await asyncio.sleep(0.2)
        counts = await up.served_by(400)
        stats = await up.envoy.stats()
    assert shares(counts, engines) == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    assert not rejections(stats)
    assert not up.picker.attributes  # weighted: the picker is not asked
    assert up.picker.entries == []


async def test_a_weight_change_is_an_eds_update_and_nothing_else(
    engines: list[Engine], tmp_path: Path
) -> None:
    async with mesh(settings(stable(*engines), tmp_path), tmp_path) as up:
        before = await up.envoy.stats()
        engines[0].waiting = 100
        eds = "cluster.m/stable.update_success"
        await until(lambda: changed(up.envoy, eds, before))
        await asyncio.sleep(0.2)
        after = await up.envoy.stats()
        up.picker.pick = ""
        counts = await up.served_by(210)
    for name in ("cluster_manager.cds.update_success", "listener_manager.lds.update_success"):
        assert after[name] == before[name]
    assert (
        after["http.kvpilot.rds.kvpilot.update_success"] == before["http.kvpilot.rds.kvpilot.update_success"]
    )
    assert counts[engines[0].address] < 15
    assert not rejections(after)


async def changed(running_envoy: Envoy, name: str, before: dict[str, str]) -> bool:
    return (await running_envoy.stats())[name] != before[name]


async def test_a_restarted_server_changes_no_cluster_and_no_listener(
    engines: list[Engine], tmp_path: Path
) -> None:
    config, store = settings(stable(*engines), tmp_path), MemoryStore()
    first = AsyncExitStack()
    await first.enter_async_context(xds(config, store))
    async with running(config, tmp_path, store) as up:
        before = await up.envoy.stats()
        await first.aclose()
        assert (await up.get()).status == 200
        async with xds(config, store):
            await until(lambda: changed(up.envoy, "cluster_manager.cds.update_success", before))
            await until(lambda: changed(up.envoy, "listener_manager.lds.update_success", before))
            await asyncio.sleep(0.3)
            after = await up.envoy.stats()
            assert (await up.get()).status == 200
    for name in ("cluster_manager.cluster_modified", "listener_manager.listener_modified"):
        assert after[name] == "0"
    for name in ("cluster_manager.cds.version", "listener_manager.lds.version"):
        assert after[name] == before[name]
    assert after["cluster_manager.cluster_added"] == before["cluster_manager.cluster_added"]
    assert not {k: v for k, v in rejections(after).items() if k.endswith("rejected")}


async def test_usage_and_first_token_come_back_in_the_access_log(
    engines: list[Engine], tmp_path: Path
) -> None:
    async with mesh(settings(stable(*engines), tmp_path), tmp_path) as up:
        up.picker.entries.clear()
        texts = {}
        others = ("/messages", "/messages-stream", "/responses-stream")
        for path in ("/json", "/stream", "/text", "/not-json", *others):
            async with up.client.post(up.url + path, data=b"{}") as response:
                assert response.status == 200
                texts[path] = await response.text()
        await until(lambda: finished(up.picker).keys() >= texts.keys())  # what came before may be late
        logs = finished(up.picker)
    usage = {"completion_tokens": 7, "prompt_tokens": 50, "cached_tokens": 32}
    assert lifted(logs["/json"]) == usage
    assert lifted(logs["/stream"]) == usage
    assert lifted(logs["/responses-stream"]) == usage
    anthropic = {"completion_tokens": 7, "prompt_tokens": 18, "cache_read_tokens": 32}
    assert lifted(logs["/messages"]) == lifted(logs["/messages-stream"]) == anthropic
    assert lifted(logs["/text"]) == {}
    assert lifted(logs["/not-json"]) == {}
    assert texts["/text"] == "plain"
    assert texts["/not-json"] == "{not json"
    assert texts["/stream"].endswith("data: [DONE]\n\n")
    common = logs["/stream"].common_properties
    assert int(common.custom_tags[FIRST_BODY_TAG]) >= 140
    assert common.upstream_cluster == "m/stable"


def finished(picker: Picker) -> dict[str, Any]:
    """The last entry of each path that has ended."""
    return {
        e.request.path: e
        for e in picker.entries
        if e.common_properties.HasField("time_to_last_downstream_tx_byte")
    }


def lifted(entry: Any) -> dict[str, float]:
    fields = entry.common_properties.metadata.filter_metadata[USAGE_NAMESPACE].fields
    return {key: value.number_value for key, value in fields.items()}


async def test_first_token_is_told_while_the_answer_still_streams(
    engines: list[Engine], tmp_path: Path
) -> None:
    async with mesh(settings(stable(*engines), tmp_path), tmp_path) as up:
        up.picker.entries.clear()
        async with up.client.get(up.url + "/stream") as response:
            await until(lambda: first_tokens(up.picker))
            assert "/stream" not in finished(up.picker)
            await response.read()
        assert 140 <= first_tokens(up.picker)[0] < 400


def first_tokens(picker: Picker) -> list[int]:
    """Milliseconds to the first token, from the entries of running requests."""
    running_ones = (e.common_properties for e in picker.entries if e.common_properties.intermediate_log_entry)
    tags = [common.custom_tags[FIRST_BODY_TAG] for common in running_ones]
    return [int(tag) for tag in tags if tag.isdigit()]


async def test_an_answer_larger_than_the_buffers_gets_through(engines: list[Engine], tmp_path: Path) -> None:
    async with (
        mesh(settings(stable(*engines), tmp_path), tmp_path) as up,
        up.client.get(up.url + "/large") as response,
    ):
        assert response.status == 200
        assert len(await response.read()) > 12 << 20


async def test_the_pick_is_obeyed_and_a_clients_own_header_is_not(
    engines: list[Engine], tmp_path: Path
) -> None:
    async with mesh(settings(stable(*engines), tmp_path), tmp_path) as up:
        up.picker.pick = engines[1].address
        picked = await up.served_by(20)
        up.picker.pick = ""
        spoofed = Counter(
            [
                (await up.get(x_gateway_destination_endpoint=engines[2].address)).headers[ENDPOINT_HEADER]
                for _ in range(30)
            ]
        )
        async with up.client.post(up.url, data=io.BytesIO(b"x" * (5 << 20))) as response:
            assert (await response.text()).endswith(f" {5 << 20}")
    assert picked == {engines[1].address: 20}
    assert shares(spoofed, engines) == pytest.approx([1 / 3] * 3, abs=0.1)
    assert set(up.picker.attributes) == {"m/stable"}
    assert up.picker.body_sizes[-1] == 5 << 20
    assert any("x-gateway-destination-endpoint" in h for h in map(lower, engines[0].headers))


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def test_versions_share_by_weight_and_sessions_stay(engines: list[Engine], tmp_path: Path) -> None:
    versions = [
        {"name": "stable", "weight": 70, "pools": [pool("p", *engines[:2])]},
        {"name": "canary", "weight": 30, "pools": [pool("p", engines[2])]},
    ]
    async with mesh(settings(versions, tmp_path, steering="weighted"), tmp_path) as up:
        first = await versions_of(up, range(200))
        second = await versions_of(up, range(200))
        by_cookie = [await versions_of(up, range(40), cookie=True) for _ in range(2)]
        named = await up.get(x_model="m")
    assert first == second
    assert by_cookie[0] == by_cookie[1]
    assert len(set(by_cookie[0].values())) == 2
    assert 30 <= Counter(first.values())["m/canary"] <= 90
    assert named.status == 200


async def versions_of(up: Mesh, sessions: range, *, cookie: bool = False) -> dict[int, str]:
    def named(s: int) -> dict[str, str]:
        return {"cookie": f"a=b; kvpilot_session=s{s}"} if cookie else {"x_session_id": f"s{s}"}

    return {s: (await up.get(**named(s))).headers[VERSION_HEADER] for s in sessions}


async def test_a_dead_endpoint_costs_no_request_and_is_ejected(engines: list[Engine], tmp_path: Path) -> None:
    async with mesh(settings(stable(*engines), tmp_path, steering="weighted"), tmp_path) as up:
        await engines[0].stop()
        statuses = Counter([(await up.get()).status for _ in range(60)])
        unhealthy = "cluster.m/stable.membership_healthy"
        await until(lambda: stat_is(up.envoy, unhealthy, "2"))
    assert statuses == {200: 60}


async def stat_is(running_envoy: Envoy, name: str, value: str) -> bool:
    return (await running_envoy.stats())[name] == value


async def test_a_picker_that_is_away_delays_nobody(engines: list[Engine], tmp_path: Path) -> None:
    config, store = settings(stable(*engines), tmp_path), MemoryStore()
    async with (
        xds(config, store),
        envoy(tmp_path, config.xds_address) as started,
        aiohttp.ClientSession() as client,
    ):
        up = Mesh(started, f"http://{config.listen}", client, Picker(""), store, config)
        await until(lambda: answers(up))
        began = time.monotonic()
        counts = await up.served_by(90)
        spent = time.monotonic() - began
    assert shares(counts, engines) == pytest.approx([1 / 3] * 3, abs=0.05)
    assert spent < 3
