"""What holds of an exchange whatever Envoy sends, and wherever it breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.gateway import Gateways
from ext_proc.metrics import PickerMetrics
from ext_proc.picker import Picker
from ext_proc.pools import Pools
from ext_proc.reporter import Reporter
from ext_proc.request import RoutingRequest
from ext_proc.server import PickerService
from ext_proc.steer import Steerer
from ext_proc.waiting import WaitingRoom
from fleet.model import Endpoint, Fleet, Hardware, Model, Version
from fleet.prefix import PrefixHasher
from fleet.settings import PickerSettings
from tests.ext_proc import messages
from tests.ext_proc.test_duplex import body, request_headers, response_headers, trailers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ext_proc.decision import Decision

ADDRESS = "10.0.0.1:80"
ENDPOINT = Endpoint(ADDRESS, "llama", "stable", "p", Hardware("H100-80GB"))
FLEET = Fleet((Model("llama", (Version("stable", 1, (ENDPOINT,)),)),))
CHAT = "/v1/chat/completions"
PROMPT = b'{"messages": [{"role": "user", "content": "' + b"x" * 3000 + b'"}]}'
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

OURS = st.sampled_from(
    [
        messages.headers(path=CHAT),
        messages.headers(path=CHAT, end=True),
        messages.headers(path="/other"),
        messages.headers(path=STREAM),
        messages.body(PROMPT),
        messages.body(PROMPT, end=False),
        messages.body(b"{"),
        response_headers(),
        trailers("request"),
        b"\xff\xff",
        b"",
    ]
)
GATEWAYS = st.sampled_from(
    [
        request_headers(path=CHAT),
        request_headers(path=CHAT, end=True),
        request_headers(path=CHAT, subset=[]),
        body("request", PROMPT),
        body("request", PROMPT, end=True),
        body("request", end=True),
        trailers("request"),
        response_headers(served=ADDRESS),
        response_headers("503", end=True),
        body("response", b"data"),
        body("response", end=True),
        trailers("response"),
        b"\xff\xff",
    ]
)


class Site:
    def __init__(self) -> None:
        chosen = PickerSettings(session_fast_path=True)
        self.picker = Picker(chosen, FLEET.endpoints.values())
        self.room = WaitingRoom(self.picker, 60, 8)
        steerer = Steerer(chosen, FLEET, PrefixHasher(b"k", 256), self.picker, self.room)
        metrics = PickerMetrics()
        self.gateways = Gateways(steerer, self.picker, self.room, Reporter(metrics), metrics, Pools(FLEET))
        self.service = PickerService(steerer, self.picker, self.room, metrics, gateways=self.gateways)

    def fill(self) -> Decision:
        decision = self.picker.pick(RoutingRequest((ADDRESS,), 10_000_000, (), 64), time.monotonic())
        assert decision is not None
        return decision


class ScriptedEnvoy:
    """Sends what it was given, and breaks off at its n-th step, if it has so many."""

    def __init__(self, script: Sequence[bytes], breaks_at: int) -> None:
        self._script = list(script)
        self._steps = breaks_at
        self.read_messages = 0
        self.written: list[bytes] = []

    async def read(self) -> object:
        self._step()
        if not self._script:
            return grpc.aio.EOF
        self.read_messages += 1
        return self._script.pop(0)

    async def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)  # and if it ends the exchange now, that may be because it has this
        self._step()

    def _step(self) -> None:
        self._steps -= 1
        if self._steps == 0:
            raise asyncio.CancelledError


async def exchange(script: Sequence[bytes], breaks_at: int, *, full: bool, goes: bool) -> ScriptedEnvoy:
    """One exchange to its end: what is held goes, or its client leaves. Nothing may be left of it."""
    site, envoy = Site(), ScriptedEnvoy(script, breaks_at)
    filler = site.fill() if full else None
    handling = asyncio.ensure_future(site.service._process(None, envoy))  # type: ignore[arg-type]
    for _ in range(5):
        await asyncio.sleep(0)
    if not handling.done():  # held
        assert len(site.room) == 1
        if filler is not None and goes:
            site.picker.cancel(filler.id, time.monotonic())
            site.room.dispatch(time.monotonic())
        else:
            handling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await handling
    assert len(site.room) == 0
    assert len(site.gateways) == 0
    if filler is not None:
        site.picker.cancel(filler.id, time.monotonic())
    told = [pb.ProcessingResponse.FromString(data).dynamic_metadata for data in envoy.written]
    placed = {metadata["kvpilot"]["pick_id"] for metadata in told if "kvpilot" in metadata}
    for id_ in placed:
        site.picker.cancel(id_, time.monotonic())  # as the access log would
    assert site.picker.in_flight == 0
    return envoy


@settings(max_examples=200, deadline=None)
@given(
    script=st.lists(OURS, max_size=5)
    | st.lists(OURS, max_size=3).map(
        lambda more: [messages.headers(path=CHAT), messages.body(PROMPT), *more]
    ),
    breaks_at=st.integers(0, 8),
    full=st.booleans(),
    goes=st.booleans(),
)
def test_our_envoy_gets_one_reply_per_message_and_leaves_nothing(
    script: list[bytes], breaks_at: int, full: bool, goes: bool
) -> None:
    envoy = asyncio.run(exchange(script, breaks_at, full=full, goes=goes))
    replies = [pb.ProcessingResponse.FromString(data) for data in envoy.written]
    answers = [reply for reply in replies if not reply.HasField("override_message_timeout")]
    assert len(answers) <= envoy.read_messages
    assert len(replies) - len(answers) <= 1  # word to wait
    assert sum("kvpilot" in reply.dynamic_metadata for reply in replies) <= 1


@settings(max_examples=200, deadline=None)
@given(
    rest=st.lists(GATEWAYS, max_size=8),
    breaks_at=st.integers(0, 14),
    full=st.booleans(),
    goes=st.booleans(),
)
def test_a_gateway_gets_one_pick_and_leaves_nothing(
    rest: list[bytes], breaks_at: int, full: bool, goes: bool
) -> None:
    envoy = asyncio.run(exchange([request_headers(path=CHAT), *rest], breaks_at, full=full, goes=goes))
    replies = [pb.ProcessingResponse.FromString(data) for data in envoy.written]
    assert sum(reply.HasField("request_headers") for reply in replies) <= 1
    assert not any(reply.HasField("override_message_timeout") for reply in replies)
