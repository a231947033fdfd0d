"""The engine model: one pod's queue, prefill, decode and KV cache, driven from event to event.

Prompts are prefilled one after the other, in order of arrival, on the tokens that the cache does not hold.
All running streams decode together: an iteration gives each of them one token, so a single clock of
iterations orders all their ends and no token needs a step of its own. A request is admitted when a batch
slot is free and its whole prompt and answer fit into the KV cache (TensorRT-LLM's guaranteed-no-evict
scheduling); until then it, and all behind it, wait.

How fast all that goes is its `sim.timing`. A pace holds from one change of who runs to the next, so event
times are exact and do not depend on how often anyone asks. Times are seconds on the caller's clock, which
must not go back.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from fleet.errors import KvpilotError
from sim.kvcache import BlockCache
from sim.timing import Batch, Prompt, StandardTiming

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sim.capacity import Capacity
    from sim.kvcache import CacheChange, Lease
    from sim.timing import Timing

# A stream's tokens are counted from a sum of iterations: this much, in tokens, is rounding.
_ROUNDING = 1e-6


class RequestTooLargeError(KvpilotError):
    """The prompt and its answer can never fit into the engine's KV cache."""


@dataclass(frozen=True, slots=True)
class Request:
    """`blocks` are the chained names of the whole blocks of prompt and answer, as far as they are known."""

    id: int  # unique among those in flight
    prompt_tokens: int
    output_tokens: int  # exactly so many are generated; at least 1
    blocks: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """At `at`, the request got its first token, or (`finished`) its last."""

    at: float
    id: int
    finished: bool
    cached_tokens: int  # prompt tokens that were not computed


@dataclass(frozen=True, slots=True)
class Gauges:
    """What an engine tells of itself. Counts of requests and of KV blocks; counters never go down."""

    active: int
    scheduled: int
    context: int
    waiting: int
    max_requests: int
    context_tokens: int  # uncached prompt tokens of the running prefill
    blocks_max: int
    blocks_used: int
    tokens_per_block: int
    blocks_reused: int  # counter
    iterations: int  # counter
    finished: int  # counter
    prefill_busy_seconds: float  # counter


@dataclass(slots=True)
class _Running:
    request: Request
    lease: Lease  # once it decodes, nothing here changes
    cached_tokens: int
    overhead_left: float  # seconds
    tokens_left: float  # prompt tokens still to compute
    cost: float  # factor on its prefill's work
    began: float = 0.0  # the iteration of its first token


class Engine:
    """One emulated engine. `submit`, `cancel` and `advance` in the order of their `now`."""

    def __init__(self, capacity: Capacity, timing: Timing | None = None) -> None:
        self._full_rate = self._rate = capacity.rate
        self._timing = timing or StandardTiming()
        self._block = capacity.tokens_per_block
        self._cache = BlockCache(capacity.kv_blocks)
        self._max_requests = capacity.max_requests
        self._overhead = capacity.overhead
        self._queue: OrderedDict[int, Request] = OrderedDict()
        self._prefill: _Running | None = None
        self._decoding: dict[int, _Running] = {}
        self._ends: list[tuple[float, int]] = []  # heap of (iteration, request), cancelled ones too
        self._events: list[Event] = []
        self._finished = 0
        self._context = 0.0  # of all streams: their prompts' tokens less the iterations they began at
        # The state below holds at `_at`, and the pace from then to the next event.
        self._at = 0.0
        self._iterations = 0.0
        self._busy = 0.0
        self._pace = self._timing.pace(self._rate, Batch(0, 0.0, None))
        self._prefill_ends_at = self._decode_ends_at = math.inf

    def submit(self, request: Request, now: float) -> None:
        """Queue a request. Raises RequestTooLargeError where it could never be admitted."""
        tokens = request.prompt_tokens + request.output_tokens
        if self._blocks_for(tokens) > self._cache.capacity:
            room = self._cache.capacity * self._block
            raise RequestTooLargeError(f"{tokens} tokens of prompt and answer exceed the KV cache of {room}")
        self._run_until(now)
        self._queue[request.id] = request
        if self._prefill is None:
            self._change(now)

    def cancel(self, request_id: int, now: float) -> None:
        """Drop a request wherever it is; one that is over is none of ours. What it computed stays cached."""
        self._run_until(now)
        if self._queue.pop(request_id, None) is not None:
            self._change(now)
        elif (stream := self._decoding.get(request_id)) is not None:
            self._settle(now)
            self._leave(stream)
            self._cache.release(stream.lease)
            self._change(now)
        elif self._prefill is not None and self._prefill.request.id == request_id:
            self._settle(now)
            self._cache.release(self._prefill.lease)
            self._prefill = None
            self._change(now)

    def set_speed(self, factor: float, now: float) -> None:
        """From `now` on prefill and decode at `factor` of the full rate; the host's overhead stays."""
        self._run_until(now)
        full = self._full_rate
        self._rate = replace(full, prefill=full.prefill * factor, tpot=full.tpot / factor)
        self._change(now)

    def advance(self, now: float) -> list[Event]:
        """What happened up to and including `now` and was not yet told, in order."""
        self._run_until(now)
        events, self._events = self._events, []
        return events

    def next_event_at(self) -> float:
        """When something will happen if nobody submits or cancels; infinity for an idle engine."""
        if self._events:
            return self._events[0].at
        return min(self._prefill_ends_at, self._decode_ends_at)

    def listen(self, hear: Callable[[CacheChange, float], None]) -> None:
        """From now on tell what is stored in the KV cache and evicted from it, each with its time."""
        self._cache.tell = lambda change: hear(change, self._at)

    def progress(self, request_id: int, now: float) -> int:
        """Output tokens that a running request has by `now`; 0 before its first, and once it is over."""
        self._run_until(now)
        stream = self._decoding.get(request_id)
        if stream is None:
            return 0
        passed = self._iterations_at(now) - stream.began
        return min(1 + int(passed + _ROUNDING), stream.request.output_tokens - 1)  # its last ends it

    def gauges(self, now: float) -> Gauges:
        """The engine's own account of itself."""
        self._run_until(now)
        context = 0 if self._prefill is None else 1
        scheduled = context + len(self._decoding)
        return Gauges(
            active=scheduled + len(self._queue),
            scheduled=scheduled,
            context=context,
            waiting=len(self._queue),
            max_requests=self._max_requests,
            context_tokens=math.ceil(self._prefill.tokens_left) if self._prefill else 0,
            blocks_max=self._cache.capacity,
            blocks_used=self._cache.used,
            tokens_per_block=self._block,
            blocks_reused=self._cache.reused,
            iterations=int(self._iterations_at(now)),
            finished=self._finished,
            prefill_busy_seconds=self._busy + context * max(0.0, now - self._at),
        )

    def _run_until(self, now: float) -> None:
        while min(self._prefill_ends_at, self._decode_ends_at) <= now:
            self._step()

    def _step(self) -> None:
        """What happens next happens."""
        at = min(self._prefill_ends_at, self._decode_ends_at)
        self._settle(at)
        if self._prefill is not None and self._prefill_ends_at <= self._decode_ends_at:
            self._end_prefill(self._prefill)
        else:
            self._end_decode()
        self._change(at)

    def _iterations_at(self, now: float) -> float:
        if not self._decoding and self._prefill is None:
            return self._iterations
        return self._iterations + self._pace.iterations(max(0.0, now - self._at))

    def _settle(self, now: float) -> None:
        """Bring the state forward to `now`, at the pace that held since it was last touched."""
        self._iterations = self._iterations_at(now)
        if (prefill := self._prefill) is not None:
            passed = max(0.0, now - self._at)
            self._busy += passed
            prefill.overhead_left = max(0.0, prefill.overhead_left - passed)
            prefill.tokens_left = max(0.0, prefill.tokens_left - self._pace.tokens(passed))
        self._at = max(now, self._at)

    def _change(self, now: float) -> None:
        """Who runs may have changed: admit the next in line, and set the pace and ends that follow."""
        self._settle(now)
        self._admit()
        self._pace = self._timing.pace(self._rate, self._batch())
        self._prefill_ends_at = self._decode_ends_at = math.inf
        if self._prefill is not None:
            self._prefill_ends_at = self._at + self._pace.prefill_seconds()
        while self._ends and self._ends[0][1] not in self._decoding:
            heappop(self._ends)
        if self._ends:
            left = max(0.0, self._ends[0][0] - self._iterations)
            self._decode_ends_at = self._at + self._pace.seconds(left)

    def _batch(self) -> Batch:
        streams = len(self._decoding)
        prompt = None
        if (prefill := self._prefill) is not None:
            position = prefill.request.prompt_tokens - prefill.tokens_left
            prompt = Prompt(position, prefill.tokens_left, prefill.overhead_left, prefill.cost)
        return Batch(streams, self._context + streams * self._iterations, prompt)

    def _admit(self) -> None:
        if self._prefill is not None or not self._queue or len(self._decoding) >= self._max_requests:
            return
        request = next(iter(self._queue.values()))
        # The last prompt token is always computed: its output is the first answer token.
        matchable = request.blocks[: (request.prompt_tokens - 1) // self._block]
        total = self._blocks_for(request.prompt_tokens + request.output_tokens)
        lease = self._cache.acquire(matchable, total)
        if lease is None:
            return
        del self._queue[request.id]
        cached = len(lease.pinned) * self._block
        left, cost = request.prompt_tokens - cached, self._timing.prompt_cost()
        self._prefill = _Running(request, lease, cached, self._overhead, left, cost)

    def _end_prefill(self, running: _Running) -> None:
        request = running.request
        computed = slice(len(running.lease.pinned), request.prompt_tokens // self._block)
        running.lease = self._cache.commit(running.lease, request.blocks[computed])
        self._prefill = None
        self._events.append(Event(self._at, request.id, finished=False, cached_tokens=running.cached_tokens))
        if request.output_tokens <= 1:
            self._finish(running)
            return
        running.began = self._iterations
        self._decoding[request.id] = running
        self._context += request.prompt_tokens - running.began
        heappush(self._ends, (running.began + request.output_tokens - 1, request.id))

    def _end_decode(self) -> None:
        end, request_id = heappop(self._ends)
        self._iterations = max(self._iterations, end)  # exact: sums of durations are not
        stream = self._decoding[request_id]
        self._leave(stream)
        self._finish(stream)

    def _leave(self, stream: _Running) -> None:
        del self._decoding[stream.request.id]
        self._context -= stream.request.prompt_tokens - stream.began

    def _finish(self, running: _Running) -> None:
        request = running.request
        whole = (request.prompt_tokens + request.output_tokens) // self._block
        lease = self._cache.commit(running.lease, request.blocks[len(running.lease.pinned) : whole])
        self._cache.release(lease)
        self._finished += 1
        self._events.append(Event(self._at, request.id, finished=True, cached_tokens=running.cached_tokens))

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block)
