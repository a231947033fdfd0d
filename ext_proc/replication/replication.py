"""A whole picker's exchange with the other replicas: a link per model, and what ties them to the picker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from ext_proc.events import Left, Placed, Waits
from ext_proc.replication.hearing import Hearing
from ext_proc.replication.link import PULSE_SECONDS, Link
from ext_proc.replication.metrics import ReplicationMetrics
from ext_proc.replication.parking import Parking
from ext_proc.replication.warm_start import WarmStart
from fleet.errors import StartError, first_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from ext_proc.events import Began, RoutingEvent
    from ext_proc.picker import Picker
    from ext_proc.waiting import WaitingRoom
    from fleet.model import Fleet
    from fleet.outage import StoreOutage
    from fleet.store.streams import Streams

TICK_SECONDS = 0.02
"""Between two looks at whom the waiting room holds, and at what is parked."""

CONFLICT_SECONDS = 2.5
"""A replica with another key that is really there says so again within this; one that crashed does not."""

KEY_LOOKS = 3
"""Pulses after the first: whoever came at the same moment has said so by then."""

LEAVE_SECONDS = 0.5
"""For the last words on all models together: a store that hangs keeps nobody from stopping."""


class Replication:
    """`ready` is set once this replica knows what it can learn from the others, or that it cannot now.

    `parking` is for log entries about picks that are not known here.
    """

    def __init__(
        self,
        fleet: Fleet,
        picker: Picker,
        room: WaitingRoom,
        streams: Streams,
        fingerprint: bytes,
        registry: CollectorRegistry,
        outage: StoreOutage,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fingerprint`: of the key and block size, see `presence`. `monotonic`: the picker's clock."""
        self.ready = asyncio.Event()
        self.parking = Parking()
        self._models = {address: endpoint.model for address, endpoint in fleet.endpoints.items()}
        self._picker = picker
        self._room = room
        self._outage = outage
        self._monotonic = monotonic
        self._metrics = ReplicationMetrics(registry)
        self._held: dict[str, str] = {}  # by id: the model of whom the room holds
        self._late = (0, 0)  # entries that were parked, as counted so far
        self.links = {
            model.name: Link(
                model.name,
                picker.replicas.name,
                fingerprint,
                streams,
                Hearing(model.name, picker, room, self.parking),
                lambda name=model.name: self._outstanding(name),  # type: ignore[misc]
                self._metrics,
                outage,
                monotonic,
            )
            for model in fleet.models
        }
        self.warm_starts = {
            name: WarmStart(
                link,
                picker,
                streams,
                fingerprint,
                tuple(address for address, model in self._models.items() if model == name),
            )
            for name, link in self.links.items()
        }
        picker.publish = self._tell

    async def run(self) -> None:
        """Join the others, be ready, and exchange for ever. Raises StartError where they have another key."""
        try:
            await self._join()
            self.ready.set()
            async with asyncio.TaskGroup() as tasks:
                for link in self.links.values():
                    tasks.create_task(link.run())
                    tasks.create_task(self.warm_starts[link.model].run())
                tasks.create_task(self._tick())
                tasks.create_task(self._make_sure())
        except* StartError as errors:
            raise first_of(errors) from None
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await asyncio.gather(*(link.leave() for link in self.links.values()))

    def tick(self) -> None:
        """Tell whom the room holds, and forget what has been parked for too long and whom the dead held."""
        self.parking.open = any(link.others for link in self.links.values())
        self.parking.expire(self._monotonic())
        late = (self.parking.applied, self.parking.dropped)
        self._metrics.parked_entries.labels("applied").inc(late[0] - self._late[0])
        self._metrics.parked_entries.labels("dropped").inc(late[1] - self._late[1])
        self._late = late
        self._metrics.parked.set(len(self.parking))
        self._room.forget_absent()
        for event in self._room.take_news():
            if isinstance(event, Waits):
                self._held[event.id] = self._models.get(event.address, "")
            model = self._held.get(event.id)
            if isinstance(event, Left):
                self._held.pop(event.id, None)
            if model in self.links:
                self.links[model].tell(event)

    async def _join(self) -> None:
        with self._outage.tolerated():
            for link in self.links.values():
                await link.beat()
                await self._refuse_strangers(link)
                await self.warm_starts[link.model].load()
                if link.others:
                    link.resync("joined")

    async def _make_sure(self) -> None:
        """Who started while the store was away, or with another at once, sees only now who else is there."""
        looks, links = 0, self.links.values()
        while looks < KEY_LOOKS or any(link.strangers for link in links):
            await asyncio.sleep(PULSE_SECONDS)
            looks += all(link.attended for link in links)
            for link in links:
                if link.strangers:  # else nothing is asked of the store, and it may be away
                    with self._outage.tolerated():
                        await self._refuse_strangers(link)

    async def _refuse_strangers(self, link: Link) -> None:
        """Raises StartError where an older replica with another key is there, StoreError."""
        if link.strangers and await self._is_alive(link):
            raise StartError(
                f"another picker of {link.model} runs with another secret: replicas hash prompts"
                " alike only with the same picker.key_file and picker.block_bytes, set for all"
            )

    async def _is_alive(self, link: Link) -> bool:
        """Whether one who has another key still says that it is there. Raises StoreError."""
        until = self._monotonic() + CONFLICT_SECONDS
        first = await link.words_of_strangers()
        while self._monotonic() < until:
            await asyncio.sleep(CONFLICT_SECONDS / 5)
            now = await link.words_of_strangers()
            if any(now[name] != word for name, word in first.items() if name in now):
                return True
        await link.forget_strangers()
        return False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick()

    def _tell(self, address: str, event: RoutingEvent) -> None:
        link = self.links.get(self._models.get(address, ""))
        if link is not None:
            link.tell(event)

    def _outstanding(self, model: str) -> list[Placed | Began | Waits]:
        """What this replica placed on endpoints of the model, or holds for them, and is not over."""
        told = self._picker.outstanding(self._picker.replicas.name)
        placed = {e.id for e in told if isinstance(e, Placed) and self._models.get(e.endpoints[0]) == model}
        waits = self._room.standing(model)
        self._held.update((event.id, model) for event in waits)
        return [*(event for event in told if event.id in placed), *waits]
