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
    slot_wait: float  # until a batch slot is free
    rate: float  # tokens a second, as learned so far
    ttft: float  # predicted time to first token, seconds: the three above together


def predict(
    state: EndpointState, prompt_tokens: float, matched_tokens: float, output_tokens: int, now: float
) -> Prediction:
    """The design's formula: (owed + own uncached tokens) / learned rate x decode slowdown + slot wait.

    `matched_tokens` is less than `prompt_tokens`: engines compute the last token to answer at all.
    """
    rate = state.rates.prefill
    uncached = prompt_tokens - matched_tokens
    wait = state.ledger.wait_seconds(now, rate)
    own = state.ledger.service_seconds(uncached, rate)
    slots = state.load.max_requests if state.load is not None else 0
    slot_wait = _slot_wait(state, slots, output_tokens) if slots else 0.0
    ttft = wait + own + slot_wait
    return Prediction(state.endpoint.address, matched_tokens, uncached, wait, own, slot_wait, rate, ttft)


def _slot_wait(state: EndpointState, slots: int, output_tokens: int) -> float:
    """With every batch slot taken: one frees each time one of `slots` answers of average length ends."""
    ahead = state.ledger.in_flight - slots + 1
    return max(0, ahead) * output_tokens * state.rates.tpot / slots
