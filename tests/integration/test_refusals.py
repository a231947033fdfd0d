"""What clients of a real Envoy get where the picker refuses a request, whatever they speak."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import grpc
import pytest

from ext_proc.admission.refusal import Refusal
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.server import PickerService, serve_picker
from ext_proc.steer import Steered
from ext_proc.waiting import WaitingRoom
from tests.integration.static_envoy import configuration, running_envoy
from tests.support import free_address, free_port, one_pool_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ext_proc.steer import Steerer


class RefusesAll:
    """Decides every POST, and turns it away."""

    def wants_body(self, method: str, path: str) -> bool:
        assert path
        return method == "POST"

    def decide_early(self, cluster: str, headers: Mapping[str, str], now: float) -> Steered | None:
        assert cluster
        assert headers
        assert now > 0
        return None

    def steer(self, cluster: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Steered:
        assert (cluster, path) == ("m/v", headers[":path"])
        assert body
        assert now > 0
        return Steered("refused", refused=Refusal("saturated", 7, "m", 0))


async def test_http_and_grpc_clients_are_told_why_and_when_to_come_again(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    settings = one_pool_settings(listen=listen, picker_address=free_address())
    picker = Picker(settings.picker, settings.fleet().endpoints.values())
    room = WaitingRoom(picker, 10, 10)
    service = PickerService(cast("Steerer", RefusesAll()), picker, room, PickerMetrics())
    nobody = free_address()
    async with (
        serve_picker(service, settings.picker_address, 1 << 20),
        running_envoy(tmp_path, configuration(settings, nobody), int(listen.rpartition(":")[2])),
        aiohttp.ClientSession(f"http://{listen}") as client,
        grpc.aio.insecure_channel(listen) as channel,
    ):
        async with client.post("/anything", json={}) as response:
            assert response.status == 429
            assert response.headers["retry-after"] == "7"
            assert response.headers["x-kvpilot-reason"] == "saturated"
            assert response.headers["content-type"] == "application/json"
            assert json.loads(await response.read())["error"]["code"] == "overloaded"
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"tensors")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Try again in 7 s" in (caught.value.details() or "")
    told = dict(caught.value.initial_metadata() or ()) | dict(caught.value.trailing_metadata() or ())
    assert told["retry-after"] == "7"
    assert told["x-kvpilot-reason"] == "saturated"
    assert picker.in_flight == 0
