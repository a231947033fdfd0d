"""How long until an endpoint gives a request its first token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ext_proc.endpoint import EndpointState
    from ext_proc.request import RoutingRequest

CROSS_ZONE_SECONDS = 0.005
"""A request that leaves its zone and an answer that comes back: milliseconds each way, and it costs money."""

LORA_LOAD_SECONDS = 0.5
"""An adapter that must be fetched first: some 100 MB from a disk or a cache nearby."""


class Prediction(NamedTuple):
    """One candidate's prospects: what it need not compute, and where its seconds would go."""

    address: str
    believed_tokens: float  # of the prompt, that the index believes to be there
    matched_tokens: float  # of those, what experience lets us count on
    uncached_tokens: float
    work: float  # those, weighed by where in the prompt they stand
    owed: float  # such work placed there before and not computed, as far as is known
    queue: float  # seconds until it should be computed, by the clock alone,
    prefill_wait: float  # and until it will be: what is late, or may be, counts
    prefill: float  # this prompt's own
    room_wait: float  # until a batch slot and KV space are free
    detour: float  # for another zone, and for an adapter that is not loaded
    rate: float  # tokens a second, as learned so far
    ttft: float  # predicted time to first token, seconds: the four above together


def predict(
    state: EndpointState,
    request: RoutingRequest,
    blocks: int,
    output_tokens: float,
    now: float,
    reserved: float = 0.0,
) -> Prediction:
    """The design's formula: (owed + own uncached tokens) / learned rate x decode slowdown + wait for room.

    `blocks` of the prompt are believed to be there; the answer is expected to have `output_tokens`. The
    prompt waits for `reserved` seconds of prefill besides those that are placed there.
    """
    rate = state.rates.prefill
    believed = request.tokens_of(blocks)
    matched = believed * state.trust
    uncached = max(1.0, request.prompt_tokens - matched)  # engines compute the last token to answer at all
    work = state.costs.work(matched, uncached)
    wait = state.ledger.wait_seconds(now, rate) + reserved
    own = state.ledger.service_seconds(work, rate)
    room_wait = _room_wait(state, request.prompt_tokens, output_tokens, now)
    detour = _detour(state, request)
    ttft = wait + own + room_wait + detour
    return Prediction(
        state.endpoint.address,
        believed,
        matched,
        uncached,
        work,
        state.ledger.owed,
        state.ledger.queue_seconds(now, rate) + reserved,
        wait,
        own,
        room_wait,
        detour,
        rate,
        ttft,
    )


def _detour(state: EndpointState, request: RoutingRequest) -> float:
    seconds = 0.0
    if request.zone and state.endpoint.zone and request.zone != state.endpoint.zone:
        seconds += CROSS_ZONE_SECONDS
    if request.lora and not state.residency.has_lora(request.lora):
        seconds += LORA_LOAD_SECONDS
    return seconds


def _room_wait(state: EndpointState, prompt_tokens: float, output_tokens: float, now: float) -> float:
    """Until enough running answers have ended: one of n ends every n-th part of an answer's time.

    The share of them that must end is the larger of what is missing in batch slots and in KV space.
    """
    load = state.load
    if load is None:
        return 0.0
    missing = 0.0
    if load.max_requests:
        missing = (state.ledger.in_flight - load.max_requests + 1) / load.max_requests
    if load.kv_blocks_used and state.fresh_load(now) is load:
        # A scrape knows nothing of what was placed since; the ledger nothing of what others share.
        used = max(load.kv_blocks_used * load.tokens_per_block, min(load.kv_tokens, state.ledger.kv_tokens))
        needed = prompt_tokens + output_tokens - (load.kv_tokens - used)
        missing = max(missing, min(1.0, needed / used))
    return max(0.0, missing) * output_tokens * state.decoding.tpot
