"""Routing policies for the simulator, by name: plain ones, the peers' as published, ours, and a bound.

Peers keep the formulas, defaults, scrape intervals and feedback that they publish; where a publication is
silent, the module's docstring says what was chosen. Formulas are pinned by golden decisions in the tests.
The prompt's blocks are those of the workload, so prefixes match to that grain for every policy.
Ours come from `sim.policies.kvpilot`, imported only when asked for.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, cast

from fleet.errors import ConfigError
from sim.policies.aibrix import AibrixPrefixCache
from sim.policies.dynamo import Dynamo
from sim.policies.epp import EppDefault, EppPrefixAffinity
from sim.policies.lmetric import LMetric
from sim.policies.oracle import Oracle
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
from sim.policies.replicas import Replicas
from sim.policies.sglang import SglangCacheAware

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.policies.replicas import Replica
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

BOUNDS: dict[str, Callable[[], Policy]] = {"oracle": Oracle}
"""Yardsticks: nobody could run these."""

NAMES = (*FACTORIES, *OURS, *BOUNDS)

TOLD = "kvpilot_told"
"""Ours with true rates that hears of every slowdown: a yardstick for learning."""

_REPLICATED = re.compile(r"(?P<router>\w+)_replicas(?P<number>[2-9])_lag(?P<lag>\d{1,4})", re.ASCII)


def replicated(router: str, number: int, lag_ms: int) -> str:
    """The name of `number` replicas of a router that hear of each other after `lag_ms` milliseconds."""
    return f"{router}_replicas{number}_lag{lag_ms}"


def is_replicated(name: str) -> bool:
    """Whether the name is one that `replicated` gives."""
    return _REPLICATED.fullmatch(name) is not None


def make(name: str) -> Policy:
    """A fresh policy. Raises ConfigError, naming the valid names, for one that does not exist.

    Besides NAMES there are TOLD and what `replicated` names, of ours and of peers.
    """
    found = _REPLICATED.fullmatch(name)
    if found and found["router"] in (*FACTORIES, *OURS):
        lag = int(found["lag"]) / 1000
        routers = [_single(found["router"], replica, lag) for replica in range(int(found["number"]))]
        if all(hasattr(router, "follow") for router in routers):
            return Replicas(cast("list[Replica]", routers), lag)
    return _single(name)


def _single(name: str, replica: int = 0, lag: float = 0.0) -> Policy:
    if name in (*OURS, TOLD):
        ours: dict[str, Callable[[int, float], Policy]] = import_module("sim.policies.kvpilot").FACTORIES
        return ours[name](replica, lag)
    others = FACTORIES | BOUNDS
    if name not in others:
        raise ConfigError("policies", "", name, f"must be one of {', '.join(NAMES)}")
    return others[name]()
