"""The exchange of one model's events with the other replicas: publishes, listens, and says that we are there.

The adapter around `outbox`, `hearing`, `clock` and `presence`. While the store is away it tries on, and
nobody waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from ext_proc.events import Asked, Began, Standing
from ext_proc.replication import presence, wire
from ext_proc.replication.clock import StoreClock
from ext_proc.replication.outbox import Outbox
from fleet.errors import RecordError, StoreError
from fleet.store.streams import START, order_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ext_proc.events import Placed, SharedEvent, Waits
    from ext_proc.replication.hearing import Hearing
    from ext_proc.replication.metrics import ReplicationMetrics
    from fleet.outage import StoreOutage
    from fleet.store.streams import Ends, Entry, Streams

PULSE_SECONDS = 1.0
"""Between two words that we are there, and looks at the store's clock and at who else is."""

RETRY_SECONDS = 0.25
"""After a failure: short beside what a backlog lasts, long beside what a refused connection costs."""

READ_WAIT_SECONDS = 1.0
"""For news: then the reader looks whether all is well, and asks again."""

READ_PAUSE_SECONDS = 0.002
"""After news: an eighth of what lag may be, and at high rates several entries come with one answer."""

READ_ENTRIES = 50
"""At once: some 2 ms of work, so that no request waits for longer."""

ASK_SECONDS = 1.0
"""Between two questions to the others, and between two answers: they name all that is outstanding."""

OFFSET_SAMPLES = 4
"""Of the store's clock before the first event goes."""

_log = logging.getLogger(__name__)


class Link:
    """One model's exchange. `outstanding` gives what this replica placed or holds, and is not over."""

    def __init__(
        self,
        model: str,
        name: str,
        fingerprint: bytes,
        streams: Streams,
        hearing: Hearing,
        outstanding: Callable[[], list[Placed | Began | Waits]],
        metrics: ReplicationMetrics,
        outage: StoreOutage,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`monotonic` is the picker's clock."""
        self.model = model
        self.name = name
        self.clock = StoreClock()
        self.outbox = Outbox()
        self.cursor = START
        self.others: tuple[str, ...] = ()
        self.strangers: tuple[str, ...] = ()
        self.attended = False
        """Whether the store has told who is there, at least once."""
        self._unlike: frozenset[str] = frozenset()  # senders whose blocks mean nothing here
        self._fingerprint = fingerprint
        self._streams = streams
        self._hearing = hearing
        self._outstanding = outstanding
        self.metrics = metrics
        self.outage = outage
        self._monotonic = monotonic
        self._since: float | None = None  # on the store's clock
        self._number = 0  # of batches made
        self._pending: bytes | None = None  # made, and perhaps published
        self._asked_at = self._answered_at = float("-inf")
        self._asks: asyncio.TimerHandle | None = None
        self._answers: asyncio.TimerHandle | None = None
        self._more, self._urgent, self._company = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def tell(self, event: SharedEvent) -> None:
        """What the others should hear."""
        self._hearing.told(event)
        dropped = self.outbox.dropped
        urgent = self.outbox.add(event, self._monotonic())
        if self.outbox.dropped > dropped:
            self.metrics.dropped.labels("backlog").inc()
        self._more.set()
        if urgent and self.others:
            self._urgent.set()

    async def run(self) -> None:
        """Exchange for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pulse())
            tasks.create_task(self._publish())
            tasks.create_task(self._listen())

    async def leave(self) -> None:
        """Say what is left to say, and that we are not there any more; briefly, and only if it works."""
        with contextlib.suppress(StoreError):
            await self._streams.leave(self.model, [self.name])
            while len(self.outbox) and await self._flush():
                pass

    async def beat(self) -> Ends:
        """One pulse: the clock, who is there, and whether the stream is what we think. Raises StoreError."""
        await self.ask_the_time()
        read_to = self.cursor  # the listener may read on while we ask
        ends = await self._streams.ends(self.model)
        now = self.store_time()
        if self._since is None:
            self._since = now
        word = presence.Word(now, self._since, self._fingerprint)
        said = await self._streams.attend(self.model, self.name, word.encode())
        found = presence.present(self.name, {**said, self.name: word.encode()}, now)
        if found.gone:
            await self._streams.leave(self.model, list(found.gone))
        if not self.others and not found.others:
            self.cursor = ends.last  # all of it is our own, or of those who left
        else:
            self._check(ends, read_to)
        self._set_others(found.others)
        self.strangers, self._unlike = found.strangers, frozenset(found.unlike)
        self.attended = True
        return ends

    async def words_of_strangers(self) -> dict[str, bytes]:
        """What those with another key said last; to be asked after a pulse. Raises StoreError."""
        word = presence.Word(self.store_time(), self._since or self.store_time(), self._fingerprint)
        said = await self._streams.attend(self.model, self.name, word.encode())
        return {name: said[name] for name in self.strangers if name in said}

    async def forget_strangers(self) -> None:
        """They did not say any more that they are there. Raises StoreError."""
        await self._streams.leave(self.model, list(self.strangers))
        self.strangers = ()

    async def ask_the_time(self) -> None:
        """One sample of the store's clock. Raises StoreError."""
        for _ in range(OFFSET_SAMPLES if self.clock.offset is None else 1):
            asked = self._monotonic()
            said = await self._streams.server_time()
            self.clock.answered(asked, self._monotonic(), said)

    def store_time(self) -> float:
        """Now, by the store's clock, which was asked before."""
        return self._monotonic() + (self.clock.offset or 0.0)

    def take_in(self, entries: list[Entry]) -> None:
        """Apply what was read, and go on behind it."""
        for entry in entries:
            self.cursor = entry.id
            if entry.sender == self.name or entry.sender in self._unlike or self.clock.offset is None:
                continue
            try:
                batch = wire.decode(entry.data, self.clock.offset)
            except RecordError:
                self.metrics.dropped.labels("unreadable").inc()
                continue
            self._hear(batch)

    def take_over(self, data: bytes) -> None:
        """Apply what a copy says is outstanding of one replica."""
        try:
            batch = wire.decode(data, self.clock.offset or 0.0)
        except RecordError:
            return
        self._hearing.take_over(batch, self._monotonic())

    def resync(self, reason: str) -> None:
        """News was missed: ask the others what is outstanding."""
        self.metrics.resyncs.labels(reason).inc()
        wait = self._asked_at + ASK_SECONDS - self._monotonic()
        if wait <= 0:
            _log.info("%s: missed news of other replicas (%s): asking them", self.model, reason)
            self._ask()
        elif self._asks is None:
            self._asks = asyncio.get_running_loop().call_later(wait, self._ask)

    def _ask(self) -> None:
        self._asks, self._asked_at = None, self._monotonic()
        self.tell(Asked(self.name))

    def _hear(self, batch: wire.Batch) -> None:
        if batch.unreadable:
            self.metrics.dropped.labels("unreadable").inc(batch.unreadable)
        heard = self._hearing.hear(batch, self._monotonic())
        if heard.again:
            return
        self.metrics.count("heard", batch.events)
        for lag in heard.lags:
            self.metrics.lag.observe(lag)
        if heard.lost:
            self.resync("lost")
        if heard.asked:
            self.announce()

    def announce(self) -> None:
        """Say what is outstanding of ours, and that nothing else is."""
        wait = self._answered_at + ASK_SECONDS - self._monotonic()
        if wait <= 0:
            self._announce()
        elif self._answers is None:
            self._answers = asyncio.get_running_loop().call_later(wait, self._announce)

    def _announce(self) -> None:
        self._answers, self._answered_at = None, self._monotonic()
        events = self._outstanding()
        for event in events:
            self.tell(event)
        self.tell(Standing(self.name, tuple(e.id for e in events if not isinstance(e, Began))))

    def _check(self, ends: Ends, read_to: str) -> None:
        """The stream may have lost its end (a failover, FLUSHALL) or its beginning (we were too slow).

        It was read to `read_to` when its ends were asked for.
        """
        cursor = order_of(self.cursor)
        if order_of(ends.last) < order_of(read_to):
            self.cursor = START
            self.resync("backwards")
        elif cursor > (0, 0) and order_of(ends.first) > cursor:
            self.resync("trimmed")

    def _set_others(self, others: tuple[str, ...]) -> None:
        came = set(others) - set(self.others)
        self.others = others
        self.metrics.replicas.labels(self.model).set(1 + len(others))
        self.metrics.backlog.labels(self.model).set(len(self.outbox))
        if others:
            self._company.set()
        else:
            self._company.clear()
        if came:
            _log.info("%s: picking together with %d other replicas", self.model, len(others))

    async def _pulse(self) -> None:
        while True:
            with self.outage.tolerated():
                await self.beat()
                if self.strangers:
                    _log.error("%s: other replicas have another picker.key_file or block_bytes", self.model)
            await asyncio.sleep(PULSE_SECONDS)

    async def _publish(self) -> None:
        while True:
            wait = self.outbox.wait(self._monotonic(), alone=not self.others)
            if self._pending is None and wait is None:
                self._more.clear()
                await self._more.wait()
            elif self._pending is None and wait:
                self._urgent.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._urgent.wait()
            elif not await self._flush():
                await asyncio.sleep(RETRY_SECONDS)

    async def _flush(self) -> bool:
        """Publish one batch; whether it worked. One that failed is tried again: who heard it skips it."""
        if self.clock.offset is None:
            return False
        if self._pending is None:
            events = self.outbox.take()
            self._number += 1
            self._pending = wire.encode(events, self.name, self._number, self.clock.offset)
            self.metrics.count("sent", events)
        if not await self._published(self._pending):
            return False
        self._pending = None
        if self.outbox.lossy and not len(self.outbox):
            self.outbox.lossy = False
            self.announce()
        return True

    async def _published(self, data: bytes) -> bool:
        ids = []  # of what was appended
        with self.outage.tolerated():
            ids.append(await self._streams.append(self.model, self.name, data))
        return bool(ids)

    async def _listen(self) -> None:
        while True:
            await self._company.wait()
            if not await self._heard_some():
                await asyncio.sleep(RETRY_SECONDS)

    async def _heard_some(self) -> bool:
        """Wait for news, for a while; whether the store answered."""
        answers = []
        with self.outage.tolerated():
            news = await self._streams.read(self.model, self.cursor, READ_WAIT_SECONDS, READ_ENTRIES)
            answers.append(news)
        for news in answers:
            self.take_in(news)
            if news:
                await asyncio.sleep(READ_PAUSE_SECONDS)
        return bool(answers)
