"""Ours: the real picker, driven through its contract with what a real one would see and when.

First tokens come with Envoy's periodic access log, ends with the entry that closes it, metrics with the
collector's scrapes. Of an answer's length and hits the picker hears only where the answer tells its usage.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc.admission.door import Admission
from ext_proc.admission.refusal import Refusal
from ext_proc.events import BlocksRemoved, BlocksStored
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from ext_proc.waiting import DISPATCH_SECONDS, WaitingRoom
from fleet.model import Rate
from fleet.names import LOG_FLUSH_SECONDS
from fleet.settings import CollectSettings, EnvoySettings, PickerSettings, TenantsSettings
from sim.policy import END_NEWS_SECONDS, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ext_proc.events import HoldEvent, Placed
    from ext_proc.waiting import Held
    from fleet.model import Endpoint, Load
    from fleet.settings import AdmissionSettings
    from sim.policy import Job, Policy

PRIOR_ERROR = 0.4
"""Priors are wrong by up to this share, either way: what a data sheet knows of a real deployment."""

BATCH_PRIORITY = -10
"""Of batch requests, where priorities count; all others have 0."""

_REPLICA_SEEDS = 1_000_003
"""Far apart, so that no replica of one run draws as another of the next."""

_NEWS_SLACK = 0.05
"""Seconds that the picker allows for beyond the log's own delay, as the server does."""


@dataclass(slots=True)
class _Pick:
    """A request under way: how it was placed, and when its first token came."""

    placed: Placed
    first_token: float | None = None

    @property
    def id(self) -> str:
        return self.placed.id

    @property
    def endpoint(self) -> str:
        return self.placed.endpoints[0]


class Kvpilot:
    """Our picker. `prior_error`: share by which the rates it starts from are wrong at most, drawn by seed.

    With `learning` off, the prefill rates it starts from are those it keeps; all else is learned. Replicas
    of one picker differ in `replica`: they start from the same rates, and draw differently. News of the
    others is `lag` seconds late. With `classes`, a gateway says which requests are batch. With `admission`,
    requests may be refused, and batch has the priority BATCH_PRIORITY.
    """

    def __init__(
        self,
        settings: PickerSettings | None = None,
        *,
        prior_error: float = PRIOR_ERROR,
        learning: bool = True,
        replica: int = 0,
        lag: float = 0.0,
        classes: bool = False,
        admission: AdmissionSettings | None = None,
    ) -> None:
        self.scrape_interval = CollectSettings().interval_seconds
        self.feedback_delay = EnvoySettings().log_interval_seconds + LOG_FLUSH_SECONDS
        self._settings = settings or PickerSettings()
        self._prior_error = prior_error
        self._learning = learning
        self._replica = replica
        self._lag = lag
        self._classes = classes
        self._admission_settings = admission
        self._admission: Admission | None = None
        self._name = f"replica-{replica}"
        self.dispatch_interval = DISPATCH_SECONDS
        self._picker: Picker | None = None
        self._in_flight: dict[int, _Pick] = {}  # by job
        self._settled: list[tuple[Job, Held]] = []  # held before, and to be told of

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """Know the fleet, with priors as wrong as they are to be; of KV caches the engines' metrics tell."""
        del kv_tokens
        draw = random.Random(seed)
        self._seed = seed + _REPLICA_SEEDS * self._replica
        self._endpoints = tuple(
            replace(endpoint, prior=_wrong(endpoint.prior, self._prior_error, draw)) for endpoint in endpoints
        )
        self._addresses = tuple(endpoint.address for endpoint in endpoints)
        self._picker = self._admission = None
        self._in_flight = {}
        self._settled = []

    def place(self, job: Job, now: float) -> int | Verdict | None:
        """The first of the endpoints that the picker lists, or wait for it."""
        request = RoutingRequest(
            candidates=self._addresses,
            prompt_tokens=job.prompt_tokens,
            blocks=job.blocks[: job.prompt_tokens // job.block_tokens],
            tokens_per_block=job.block_tokens,
            output_limit=job.output_limit,
            session=job.session,
            workload_class="batch" if self._classes and job.workload_class == "batch" else "interactive",
            priority=BATCH_PRIORITY if self._admission_settings and job.workload_class == "batch" else 0,
        )
        self._picker_for(job.block_tokens)
        visit = None if self._admission is None else self._admission.visit("", request, now)
        if isinstance(visit, Refusal):
            return None
        held = self._room.arrive(request, now, visit)
        if held.settled:
            return self._sent(job, held)
        held.wake = lambda: self._settled.append((job, held))
        return Verdict.HELD

    def dispatch(self, now: float) -> list[tuple[Job, int | None]]:
        """Who waited, and goes now."""
        self._room.dispatch(now)
        settled, self._settled = self._settled, []
        return [(job, self._sent(job, held)) for job, held in settled]

    def _sent(self, job: Job, held: Held) -> int | None:
        decision = held.decision
        if decision is None:
            return None
        self._in_flight[job.id] = _Pick(decision.placed)
        return self._addresses.index(decision.endpoints[0])

    def take_news(self) -> list[HoldEvent]:
        """Whom this replica holds, for the others."""
        return self._room.take_news()

    def hear(self, event: HoldEvent, now: float) -> None:
        """Whom another replica holds."""
        del now
        if self._picker is not None:
            self._room.hear(event)

    def placement(self, job: Job) -> Placed:
        """What another replica must hear of a request that was placed here."""
        return self._in_flight[job.id].placed

    def follow(self, job: Job, placed: Placed, now: float) -> None:
        """A request that another replica placed."""
        self._in_flight[job.id] = _Pick(placed)
        self._picker_for(job.block_tokens).apply(placed, now)

    def first_token(self, job: Job, now: float, at: float) -> None:
        """The log entry of a request that still runs."""
        picker, pick = self._picker_for(job.block_tokens), self._in_flight[job.id]
        pick.first_token = at
        picker.running(pick.id, now, endpoint=pick.endpoint)
        picker.first_token(pick.id, at)

    def finish(self, job: Job, now: float, cached_tokens: int | None) -> None:
        """The entry that closes a request's log; an answer that tells its hits tells its length, too."""
        pick = self._in_flight.pop(job.id)
        told = cached_tokens is not None
        first = pick.first_token
        self._picker_for(job.block_tokens).finish(
            pick.id,
            now,
            endpoint=pick.endpoint,
            answered=first is not None,  # else the engine refused it; of a stream, the log has exact times
            decode_seconds=None if first is None else now - self._end_news(pick) - first,
            output_tokens=job.output_tokens if told else None,
            prompt_tokens=job.prompt_tokens if told else None,
            cached_tokens=cached_tokens,
        )

    def _end_news(self, pick: _Pick) -> float:
        """How late an end is heard of, which the log's own times do not contain."""
        return END_NEWS_SECONDS + (0.0 if pick.placed.replica == self._name else self._lag)

    def scrape(self, index: int, load: Load, now: float) -> None:
        """The collector's news. As often, the log speaks of all that runs, and the picker tidies up."""
        picker = self._picker_for(load.tokens_per_block)
        picker.observe(self._addresses[index], load, now)
        if index == 0:
            for pick in self._in_flight.values():
                picker.running(pick.id, now)
            picker.expire(now)

    def stored(self, index: int, blocks: Sequence[int], now: float) -> None:
        """An engine's KV event."""
        if self._picker is not None:
            self._picker.apply(BlocksStored(self._addresses[index], blocks), now)

    def removed(self, index: int, blocks: Sequence[int], now: float) -> None:
        """An engine's KV event."""
        if self._picker is not None:
            self._picker.apply(BlocksRemoved(self._addresses[index], blocks), now)

    @property
    def in_flight(self) -> int:
        """Requests that the picker believes to be under way."""
        return 0 if self._picker is None else self._picker.in_flight

    def _picker_for(self, block_tokens: int) -> Picker:
        """The picker; the first news of the size of blocks makes it."""
        if self._picker is None:
            settings = self._settings
            # What hashes are made of is the workload's affair: only how many tokens each stands for matters.
            settings = settings.model_copy(update={"bytes_per_token": settings.block_bytes / block_tokens})
            delay = self.feedback_delay + _NEWS_SLACK + self._lag
            self._picker = Picker(settings, self._endpoints, self._seed, news_delay=delay, name=self._name)
            self._room = WaitingRoom(self._picker, settings.hold_seconds, settings.held_max)
            if self._admission_settings is not None:
                by_model = {"": self._admission_settings}
                self._admission = Admission(by_model, TenantsSettings(), self._picker, self._seed)
            if not self._learning:
                for endpoint in self._endpoints:
                    self._picker.believe(endpoint.address, endpoint.prior.prefill, certain=True)
        return self._picker


def _wrong(rate: Rate, error: float, draw: random.Random) -> Rate:
    """Wrong in prefill and decode independently: compute binds the one, memory bandwidth the other."""
    return Rate(
        prefill=rate.prefill * draw.uniform(1 - error, 1 + error),
        tpot=rate.tpot * draw.uniform(1 - error, 1 + error),
    )


class KvpilotTold(Kvpilot):
    """Knows every rate, and hears of every change of one at once: what learning is measured against."""

    def slowed(self, index: int, factor: float, now: float) -> None:
        """The endpoint does everything at `factor` of its speed from now on."""
        del now
        endpoint = self._endpoints[index]
        if self._picker is not None:
            self._picker.believe(endpoint.address, endpoint.prior.prefill * factor, certain=True)


FACTORIES: dict[str, Callable[[int, float], Policy]] = {
    "kvpilot": lambda replica, lag: Kvpilot(replica=replica, lag=lag),
    "kvpilot_true_rates": lambda replica, lag: Kvpilot(
        prior_error=0.0, learning=False, replica=replica, lag=lag
    ),
    "kvpilot_told": lambda replica, lag: KvpilotTold(
        prior_error=0.0, learning=False, replica=replica, lag=lag
    ),
}
"""By the replica's number and lag. As deployed: rates learned, from priors that are wrong. Told every true
rate, learning none. And told of every change, too."""
