"""Carries the exchanges with gateways whose endpoint picker this is: `duplex` in, effects out.

Unlike the exchange with our own Envoy these stay open for the whole answer, which is how its end is known.
"""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ext_proc import opening
from ext_proc.duplex import DuplexStream, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ext_proc.admission.refusal import Refusal
    from ext_proc.duplex import Decider
    from ext_proc.metrics import PickerMetrics
    from ext_proc.picker import Picker
    from ext_proc.pools import Pools
    from ext_proc.reporter import Reporter
    from ext_proc.waiting import Held, WaitingRoom
    from ext_proc.watchdog import UnderWay

ATTEND_SECONDS = 1.0
"""Between two looks at who is open, at most."""

SILENCE_SHARE = 0.25
"""Of `picker.silence_seconds`: whoever is open is looked at several times before it would be given up."""

Mode = Literal["auto", "always"]


class Host(Protocol):
    """What exchanges share with those of our own Envoys; `ext_proc.server.PickerService` has it."""

    @property
    def picks(self) -> UnderWay:
        """Where the watchdog hears of what is under way."""

    async def turn_of(self, held: Held) -> None:
        """Wait until the request that is held is settled."""

    def count_refused(self, refused: Refusal) -> None:
        """A request was turned away."""


class Gateways:
    """All exchanges with gateways."""

    def __init__(
        self,
        decider: Decider,
        picker: Picker,
        room: WaitingRoom,
        reporter: Reporter,
        metrics: PickerMetrics,
        pools: Pools,
        *,
        mode: Mode = "auto",
        body_max: int = 8 << 20,
        test_headers: bool = False,
        authorities: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`mode` auto: who announces FULL_DUPLEX_STREAMED is a gateway; always: everybody is, since older
        ones announce nothing. `body_max`: bytes of a body that are gathered. `authorities`: clusters by the
        name that gateways ask for, with a port or without."""
        self._decider = decider
        self._picker = picker
        self._room = room
        self._reporter = reporter
        self._metrics = metrics
        self._pools = pools
        self._mode = mode
        self._body_max = body_max
        self._test_headers = test_headers
        self._authorities = authorities
        self._open: set[DuplexStream] = set()

    def __len__(self) -> int:
        """Exchanges that are open."""
        return len(self._open)

    def is_gateway(self, first: bytes) -> bool:
        """Whether an exchange that begins so is one with a gateway."""
        return self._mode == "always" or opening.is_duplex(first)

    async def attend(self, silence: float) -> None:
        """Keep open exchanges' requests in the ledger, for ever, where `silence` seconds give one up."""
        while True:
            await asyncio.sleep(min(ATTEND_SECONDS, SILENCE_SHARE * silence))
            now = time.monotonic()
            for stream in list(self._open):
                stream.attend(now)

    async def process(self, first: bytes, context: Any, cluster: str, host: Host) -> None:
        """One exchange, at an address for one `cluster`, '' for any. `context` reads and writes messages."""
        cluster = cluster or (self._asked_for(context) if self._authorities else "")
        rules = Rules(self._pools, cluster, self._body_max, self._test_headers)
        stream = DuplexStream(self._decider, self._picker, rules)
        began = time.monotonic()
        self._open.add(stream)
        data: object = first
        try:
            while isinstance(data, bytes):
                host.picks.began(stream, time.monotonic())
                for answer in self._receive(stream, data):
                    await context.write(answer)
                host.picks.ended(stream, time.monotonic())
                if stream.waits and stream.held is not None:
                    await host.turn_of(stream.held)
                    replies = stream.go(stream.held, time.monotonic())
                    self._reporter.placed(stream)
                    for answer in replies:
                        await context.write(answer)
                if stream.done:
                    break
                data = await context.read()
        finally:
            host.picks.dropped(stream)
            self._open.discard(stream)
            self._close(stream, began, host)

    def _receive(self, stream: DuplexStream, data: bytes) -> Sequence[bytes]:
        undecided = stream.decision is None
        replies = stream.receive(data, time.monotonic())
        if undecided:  # until now; later on the pick may be over
            self._reporter.placed(stream)
        return replies

    def _asked_for(self, context: Any) -> str:
        """The cluster that the call's authority is for; '' for none, or where none is shown."""
        authority = dict(context.invocation_metadata()).get(":authority", "")
        return self._authorities.get(authority) or self._authorities.get(authority.rpartition(":")[0], "")

    def _close(self, stream: DuplexStream, began: float, host: Host) -> None:
        if stream.refused is not None:
            host.count_refused(stream.refused)
        if stream.held is not None and not stream.held.settled:
            self._room.leave(stream.held)
        stream.end(time.monotonic())
        self._reporter.shown(stream, began, answered=True)
        if stream.decision is not None:
            by = _whether_obeyed(stream.served, stream.decision.endpoints)
            self._metrics.served.labels(by).inc()


def _whether_obeyed(served: str, endpoints: tuple[str, ...]) -> str:
    if not served:
        return "unknown"
    if served not in endpoints:
        return "other"
    return "picked" if served == endpoints[0] else "listed"
