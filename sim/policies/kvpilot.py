"""Ours: the real picker, driven through its contract with what a real one would see and when.

First tokens come with Envoy's periodic access log, ends with the entry that closes it, metrics with the
collector's scrapes. Of an answer's length and hits the picker hears only where the answer tells its usage.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.model import Rate
from fleet.names import LOG_FLUSH_SECONDS
from fleet.settings import CollectSettings, EnvoySettings, PickerSettings
from sim.policy import END_NEWS_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fleet.model import Endpoint, Load
    from sim.policy import Job, Policy

PRIOR_ERROR = 0.4
"""Priors are wrong by up to this share, either way: what a data sheet knows of a real deployment."""

_NEWS_SLACK = 0.05
"""Seconds that the picker allows for beyond the log's own delay, as the server does."""


@dataclass(slots=True)
class _Pick:
    """A request under way: its pick id, where it is, and when its first token came."""

    id: str
    endpoint: str
    first_token: float | None = None


class Kvpilot:
    """Our picker. `prior_error`: share by which the rates it starts from are wrong at most, drawn by seed.

    With `learning` off, the rates it starts from are those it keeps.
    """

    def __init__(
        self,
        settings: PickerSettings | None = None,
        *,
        prior_error: float = PRIOR_ERROR,
        learning: bool = True,
    ) -> None:
        self.scrape_interval = CollectSettings().interval_seconds
        self.feedback_delay = EnvoySettings().log_interval_seconds + LOG_FLUSH_SECONDS
        self._settings = settings or PickerSettings()
        self._prior_error = prior_error
        self._learning = learning
        self._picker: Picker | None = None
        self._in_flight: dict[int, _Pick] = {}  # by job

    def start(self, endpoints: Sequence[Endpoint], kv_tokens: Sequence[int], seed: int) -> None:
        """Know the fleet, with priors as wrong as they are to be; of KV caches the engines' metrics tell."""
        del kv_tokens
        draw = random.Random(seed)
        self._seed = seed
        self._endpoints = tuple(
            replace(endpoint, prior=_wrong(endpoint.prior, self._prior_error, draw)) for endpoint in endpoints
        )
        self._addresses = tuple(endpoint.address for endpoint in endpoints)
        self._picker = None
        self._in_flight = {}

    def place(self, job: Job, now: float) -> int | None:
        """The first of the endpoints that the picker lists."""
        request = RoutingRequest(
            candidates=self._addresses,
            prompt_tokens=job.prompt_tokens,
            blocks=job.blocks[: job.prompt_tokens // job.block_tokens],
            tokens_per_block=job.block_tokens,
            expected_output_tokens=job.output_limit or self._settings.expected_output_tokens,
            session=job.session,
        )
        decision = self._picker_for(job.block_tokens).pick(request, now)
        if decision is None:
            return None
        address = decision.endpoints[0]
        self._in_flight[job.id] = _Pick(decision.id, address)
        return self._addresses.index(address)

    def first_token(self, job: Job, now: float, at: float) -> None:
        """The log entry of a request that still runs."""
        picker, pick = self._picker_for(job.block_tokens), self._in_flight[job.id]
        pick.first_token = at
        # No rate is learned from a request that was retried; said of all, the rates stay as they were given.
        picker.running(pick.id, now, endpoint=pick.endpoint, attempts=1 if self._learning else 2)
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
            decode_seconds=None if first is None else now - END_NEWS_SECONDS - first,
            output_tokens=job.output_tokens if told and self._learning else None,
            prompt_tokens=job.prompt_tokens if told else None,
            cached_tokens=cached_tokens,
        )

    def scrape(self, index: int, load: Load, now: float) -> None:
        """The collector's news. As often, the log speaks of all that runs, and the picker tidies up."""
        picker = self._picker_for(load.tokens_per_block)
        picker.observe(self._addresses[index], load, now)
        if index == 0:
            for pick in self._in_flight.values():
                picker.running(pick.id, now)
            picker.expire(now)

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
            delay = self.feedback_delay + _NEWS_SLACK
            self._picker = Picker(settings, self._endpoints, self._seed, news_delay=delay)
        return self._picker


def _wrong(rate: Rate, error: float, draw: random.Random) -> Rate:
    """Wrong in prefill and decode independently: compute binds the one, memory bandwidth the other."""
    return Rate(
        prefill=rate.prefill * draw.uniform(1 - error, 1 + error),
        tpot=rate.tpot * draw.uniform(1 - error, 1 + error),
    )


def _true_rates() -> Kvpilot:
    return Kvpilot(prior_error=0.0, learning=False)


FACTORIES: dict[str, Callable[[], Policy]] = {"kvpilot": Kvpilot, "kvpilot_true_rates": _true_rates}
"""As deployed: rates learned, from priors that are wrong. And told every true rate, learning none."""
