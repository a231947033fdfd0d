"""A picker over three endpoints, one four times as fast as the others, and requests to place on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ext_proc.endpoint import EndpointState
from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.cost_model import CostModel
from fleet.model import Endpoint, Hardware, Rate
from fleet.settings import PickerSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ext_proc.decision import Decision

FAST, SLOW, THIRD = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
SETTINGS = PickerSettings()
TOKENS = SETTINGS.tokens_per_block
TPOT = 0.01


def endpoint(address: str, rate: float, zone: str = "") -> Endpoint:
    return Endpoint(address, "m", "v", "p", Hardware("H100-80GB"), prior=Rate(rate, TPOT), zone=zone)


ENDPOINTS = [endpoint(FAST, 20_000), endpoint(SLOW, 5_000), endpoint(THIRD, 5_000)]


def make_picker(seed: int = 0, name: str = "") -> Picker:
    return Picker(SETTINGS, ENDPOINTS, seed=seed, name=name)


def make_state(address: str = FAST, rate: float = 10_000, costs: CostModel | None = None) -> EndpointState:
    return EndpointState(endpoint(address, rate), costs or CostModel(), news_delay=0.5, stale_after=10.0)


def request(
    blocks: Sequence[int] = range(100),
    candidates: tuple[str, ...] = (FAST, SLOW, THIRD),
    session: str = "",
    streamed: bool = True,
    lora: str = "",
    tenant: str = "",
    priority: int = 0,
    deadline: float = math.inf,
) -> RoutingRequest:
    return RoutingRequest(
        candidates=candidates,
        prompt_tokens=len(blocks) * TOKENS + 1,
        blocks=blocks,
        tokens_per_block=TOKENS,
        session=session,
        streamed=streamed,
        lora=lora,
        tenant=tenant,
        priority=priority,
        deadline=deadline,
    )


def fresh(n: int) -> range:
    """The blocks of a prompt that no other begins like."""
    return range(n * 1000, n * 1000 + 100)


def pick(picker: Picker, asked: RoutingRequest, now: float) -> Decision:
    decision = picker.pick(asked, now)
    assert decision is not None
    return decision
