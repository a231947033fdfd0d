"""What other replicas told, applied to the picker and its waiting room: each batch once, and in order.

Batches of one sender are numbered. One heard before is skipped, so a stream may be read again from any
point; a number left out is news that was lost, and then the others are asked what is outstanding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc import completions
from ext_proc.events import Asked, Began, Cancelled, Ended, Left, Placed, Standing, Waits

if TYPE_CHECKING:
    from ext_proc.events import RoutingEvent, SharedEvent
    from ext_proc.picker import Picker
    from ext_proc.replication.parking import Parking
    from ext_proc.replication.wire import Batch
    from ext_proc.waiting import WaitingRoom

OVER_MAX = 16_384
"""Ended requests remembered, about 3 MB: one that is told of again, by who had not heard, is over still."""

SENDERS_MAX = 1024
"""Names remembered; each start of a process makes one."""

HELD_NEWS_SECONDS = 5.0
"""Who was held longer ago than this, as read from an old part of the stream, is not held any more."""


@dataclass(slots=True)
class Heard:
    """What came of one batch."""

    lags: tuple[float, ...] = ()  # seconds from placements to their news
    again: bool = False  # heard before
    lost: bool = False  # others before it were not heard
    asked: bool = False  # the sender wants to know what is outstanding


class Hearing:
    """One model's news for one picker. Times are seconds on the picker's clock."""

    def __init__(self, model: str, picker: Picker, room: WaitingRoom, parking: Parking) -> None:
        self._model = model
        self._picker = picker
        self._room = room
        self._parking = parking
        self._numbers: dict[str, int] = {}
        self._over: dict[str, None] = {}

    def told(self, event: SharedEvent) -> None:
        """What this replica tells itself; what is over for it stays over."""
        if isinstance(event, Ended | Cancelled):
            self._remember_over(event.id)

    def hear(self, batch: Batch, now: float) -> Heard:
        """Apply a batch of another replica."""
        last = self._numbers.pop(batch.sender, None)
        if last is not None and batch.number <= last:
            self._numbers[batch.sender] = last
            return Heard(again=True)
        self._numbers[batch.sender] = batch.number
        if len(self._numbers) > SENDERS_MAX:
            del self._numbers[next(iter(self._numbers))]
        heard = Heard(lost=last is not None and batch.number > last + 1)
        lags = []
        for event in batch.events:
            if isinstance(event, Asked):
                heard.asked = True
            elif isinstance(event, Waits | Left):
                self._hold(event, now)
            elif isinstance(event, Standing):
                of_model = replace(event, model=self._model)
                self._room.keep_only(of_model)
                self._apply(of_model, now)
            else:
                self._apply(event, now)
                if isinstance(event, Placed) and not event.again:
                    lags.append(now - event.at)
        heard.lags = tuple(lags)
        return heard

    def take_over(self, batch: Batch, now: float) -> None:
        """What a copy says of one replica's requests; its batches go on from any number."""
        for event in batch.events:
            if isinstance(event, Placed | Began):
                self._apply(event, now)

    def _apply(self, event: RoutingEvent, now: float) -> None:
        if isinstance(event, Placed):
            if event.id not in self._over:
                self._picker.apply(event, now)
                for entry in self._parking.take(event.id):
                    completions.apply(entry, self._picker, now)
            return
        if isinstance(event, Ended | Cancelled):
            self._remember_over(event.id)
        self._picker.apply(event, now)

    def _hold(self, event: Waits | Left, now: float) -> None:
        if isinstance(event, Left) or event.turn[0] > now - HELD_NEWS_SECONDS:
            self._room.hear(event)

    def _remember_over(self, id_: str) -> None:
        self._over[id_] = None
        if len(self._over) > OVER_MAX:
            del self._over[next(iter(self._over))]
