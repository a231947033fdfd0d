"""Routing policies for the simulator, by name: plain ones, the peers' as published, and ours.

Peers keep the formulas, defaults, scrape intervals and feedback that they publish; where a publication is
silent, the module's docstring says what was chosen. Formulas are pinned by golden decisions in the tests.
The prompt's blocks are those of the workload, so prefixes match to that grain for every policy.
Ours come from `sim.policies.kvpilot`, imported only when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fleet.errors import ConfigError
from sim.policies.aibrix import AibrixPrefixCache
from sim.policies.dynamo import Dynamo
from sim.policies.epp import EppDefault, EppPrefixAffinity
from sim.policies.lmetric import LMetric
from sim.policies.plain import (
    BoundedHash,
    LeastRequests,
    PowerOfTwo,
    RandomChoice,
    RoundRobin,
    SessionHash,
)
from sim.policies.production_stack import ProductionStackLoadAware
from sim.policies.ray_serve import RayPrefixAware
from sim.policies.sglang import SglangCacheAware

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.policy import Policy

FACTORIES: dict[str, Callable[[], Policy]] = {
    "round_robin": RoundRobin,
    "random": RandomChoice,
    "least_requests": LeastRequests,
    "power_of_two": PowerOfTwo,
    "session_hash": SessionHash,
    "bounded_hash": BoundedHash,
    "epp_default": EppDefault,
    "epp_prefix_affinity": EppPrefixAffinity,
    "sglang_cache_aware": SglangCacheAware,
    "dynamo": Dynamo,
    "aibrix_prefix_cache": AibrixPrefixCache,
    "production_stack_loadaware": ProductionStackLoadAware,
    "ray_prefix_aware": RayPrefixAware,
    "lmetric": LMetric,
}

OURS = ("kvpilot", "kvpilot_true_rates")
"""Made by `sim.policies.kvpilot.FACTORIES`, which drives the real picker."""

NAMES = (*FACTORIES, *OURS)


def make(name: str) -> Policy:
    """A fresh policy. Raises ConfigError, naming the valid names, for one that does not exist."""
    if name in OURS:
        ours: dict[str, Callable[[], Policy]] = import_module("sim.policies.kvpilot").FACTORIES
        return ours[name]()
    if name not in FACTORIES:
        raise ConfigError("policies", "", name, f"must be one of {', '.join(NAMES)}")
    return FACTORIES[name]()
