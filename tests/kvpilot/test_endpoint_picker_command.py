from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fleet import settings_file
from fleet.errors import ConfigError
from kvpilot import endpoint_picker_command as command
from tests.ext_proc.test_duplex import request_headers
from tests.support import free_port, one_pool_settings, until

if TYPE_CHECKING:
    from pathlib import Path

FIXTURE = ("--pool-name", "pool-1", "--pool-namespace", "tests", "--zap-encoder", "json")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_to(parser.add_subparsers())
    return parser.parse_args(["endpoint-picker", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kvpilot.yaml"
    settings = one_pool_settings(redis_url=f"unix://{tmp_path}/no-redis", picker={"workers": 2})
    path.write_text(settings_file.dump(settings))
    return path


def test_the_flags_say_where_to_listen_and_that_everybody_is_a_gateway(file: Path) -> None:
    options = parse("-c", str(file), "--grpc-port", "19002", "--grpc-health-port", "19003", *FIXTURE)
    settings = command.settings_for(options)
    assert settings.picker_address == "0.0.0.0:19002"
    assert settings.endpoint_picker.health_address == "0.0.0.0:19003"
    assert settings.endpoint_picker.mode == "always"
    assert not settings.endpoint_picker.test_headers
    assert command.settings_for(parse("-c", str(file), "--test-headers")).endpoint_picker.test_headers


def test_names_the_flags_that_have_no_effect_yet() -> None:
    given = parse(*FIXTURE, "--endpoint-target-ports", "8000,8001")
    assert list(command.without_effect(given)) == [
        "--pool-name",
        "--pool-namespace",
        "--endpoint-target-ports",
    ]
    assert not list(command.without_effect(parse()))


def test_says_that_one_worker_serves_however_many_the_file_names(file: Path) -> None:
    said = command.workers_without_effect(command.settings_for(parse("-c", str(file))))
    assert said == "picker.workers 2: no effect, one worker serves"
    assert command.workers_without_effect(one_pool_settings()) == ""


def test_one_port_cannot_serve_both(file: Path) -> None:
    with pytest.raises(ConfigError, match="another port"):
        command.settings_for(parse("-c", str(file), "--grpc-port", "9003"))


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_refuses_what_is_no_port(port: str) -> None:
    with pytest.raises(SystemExit):
        parse("--grpc-port", port)


async def test_serves_a_gateway_until_it_is_told_to_end(file: Path) -> None:
    port, health = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kvpilot", "endpoint-picker", "-c", str(file), "--host", "127.0.0.1",
        "--grpc-port", str(port), "--grpc-health-port", str(health), *FIXTURE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{health}") as checks,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            stub = health_pb2_grpc.HealthStub(checks)

            async def serving() -> bool:
                try:
                    asked = health_pb2.HealthCheckRequest(service="inference-extension")
                    answer = await stub.Check(asked, wait_for_ready=True, timeout=5)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await until(serving, seconds=20)
            name = "envoy.service.ext_proc.v3.ExternalProcessor"
            call: Any = channel.stream_stream(f"/{name}/Process")()
            await call.write(request_headers(end=True))
            answer = pb.ProcessingResponse.FromString(await call.read())
            assert answer.dynamic_metadata["envoy.lb"]["x-gateway-destination-endpoint"] == "10.0.0.1:80"
            call.cancel()
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert b"--pool-name, --pool-namespace: no effect" in errors
    assert b"picker.workers 2: no effect" in errors
