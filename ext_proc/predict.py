"""How long until an endpoint gives a request its first token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ext_proc.endpoint import EndpointState


class Prediction(NamedTuple):
    """One candidate's prospects: what it need not compute, and where its seconds would go."""

    address: str
    matched_tokens: float
    uncached_tokens: float
    prefill_wait: float  # until the prompts before this one are computed
    prefill: float  # this prompt's own
    room_wait: float  # until a batch slot and KV space are free
    rate: float  # tokens a second, as learned so far
    ttft: float  # predicted time to first token, seconds: the three above together


def predict(
    state: EndpointState, prompt_tokens: float, matched_tokens: float, output_tokens: int, now: float
) -> Prediction:
    """The design's formula: (owed + own uncached tokens) / learned rate x decode slowdown + wait for room.

    `matched_tokens` is less than `prompt_tokens`: engines compute the last token to answer at all.
    """
    rate = state.rates.prefill
    uncached = prompt_tokens - matched_tokens
    wait = state.ledger.wait_seconds(now, rate)
    own = state.ledger.service_seconds(uncached, rate)
    room_wait = _room_wait(state, prompt_tokens, output_tokens, now)
    ttft = wait + own + room_wait
    return Prediction(state.endpoint.address, matched_tokens, uncached, wait, own, room_wait, rate, ttft)


def _room_wait(state: EndpointState, prompt_tokens: float, output_tokens: int, now: float) -> float:
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
        used = load.kv_blocks_used * load.tokens_per_block
        needed = prompt_tokens + output_tokens - (load.kv_tokens - used)
        missing = max(missing, min(1.0, needed / used))
    return max(0.0, missing) * output_tokens * state.rates.tpot
