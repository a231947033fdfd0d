"""Fleet state to endpoint weights: who gets how much where no picker chooses.

A weight is proportional to how fast the endpoint prefills (measured where it was, else expected of its
hardware) times the headroom it has left. Endpoints known to be unready are ejected, but never all of a
cluster: then the knowledge is more likely to be wrong than every endpoint dead. Pure: state and `now` in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fleet.model import Endpoint, Fleet, Load, Rate
    from fleet.settings import Steering, WeightSettings

MAX_WEIGHT = 1000
"""The weight of a cluster's best endpoint: steps of a tenth of a percent, far from Envoy's 32-bit sum."""

HALVING_QUEUE = 8
"""Waiting requests that halve an endpoint's weight: about one prefill batch."""

LEAST_HEADROOM = 0.1
"""A full endpoint keeps a tenth of its weight, so that its state is still seen to change."""


def headroom(load: Load | None, now: float, stale_after: float) -> float:
    """Share of an endpoint's capacity that is free, from LEAST_HEADROOM to 1; 1 where nobody knows.

    `now` and `load.at` are Unix seconds; a load older than `stale_after` seconds tells nothing.
    """
    if load is None or now - load.at > stale_after:
        return 1.0
    free = max(0.0, 1.0 - load.kv_used) * HALVING_QUEUE / (HALVING_QUEUE + load.waiting)
    return max(LEAST_HEADROOM, free)


def admitted(
    endpoints: Iterable[Endpoint], loads: Mapping[str, Load], now: float, stale_after: float
) -> tuple[Endpoint, ...]:
    """The endpoints of one cluster that may get requests: all but those freshly known to be unready."""

    def unready(endpoint: Endpoint) -> bool:
        load = loads.get(endpoint.address)
        return load is not None and not load.ready and now - load.at <= stale_after

    everyone = tuple(endpoints)
    return tuple(e for e in everyone if not unready(e)) or everyone


def target_weights(
    speeds: Mapping[str, float], loads: Mapping[str, Load], now: float, stale_after: float
) -> dict[str, float]:
    """One cluster's weights by address, the best at MAX_WEIGHT and none below 1.

    `speeds` are the admitted endpoints' prefill rates, tokens a second, all positive.
    """
    free = {a: speed * headroom(loads.get(a), now, stale_after) for a, speed in speeds.items()}
    best = max(free.values(), default=1.0)
    return {a: max(1.0, MAX_WEIGHT * value / best) for a, value in free.items()}


class WeightController:
    """Follows the targets smoothly, and speaks up only for changes worth a push."""

    def __init__(
        self, fleet: Fleet, settings: WeightSettings, steering: Steering, stale_after: float
    ) -> None:
        """`stale_after`: seconds after which a load says nothing any more."""
        self._stale_after = stale_after
        self._fleet = fleet
        self._settings = settings
        self._equal = steering == "round_robin"
        self._smooth: dict[str, float] = {}
        self._published: dict[str, int] = {}
        self._share = settings.smoothing  # of the way to its target that a weight moves in the next update

    def resume(self, weights: Mapping[str, int]) -> None:
        """Go on from the weights that an earlier process pushed; those of unknown endpoints are dropped.

        The next update repeats them, so that a restart alone moves nothing.
        """
        self._share = 0.0
        self._smooth = {
            a: float(min(max(w, 1), MAX_WEIGHT)) for a, w in weights.items() if a in self._fleet.endpoints
        }

    def update(
        self, now: float, loads: Mapping[str, Load], rates: Mapping[str, Rate]
    ) -> dict[str, int] | None:
        """All admitted endpoints' weights, 1 to MAX_WEIGHT, or None where nothing is worth a push.

        To be called once per `interval_seconds`; `now` is Unix seconds. Ejected endpoints are absent.
        """
        clusters = self._fleet.clusters.values()
        self._smooth = {a: w for members in clusters for a, w in self._step(members, now, loads, rates)}
        self._share = self._settings.smoothing
        weights = {a: max(1, round(w)) for a, w in self._smooth.items()}
        if not self._worth_a_push(weights):
            return None
        self._published = weights
        return dict(weights)

    def _step(
        self,
        endpoints: tuple[Endpoint, ...],
        now: float,
        loads: Mapping[str, Load],
        rates: Mapping[str, Rate],
    ) -> list[tuple[str, float]]:
        """One cluster's weights, moved a part of the way to their targets."""
        ready = [e.address for e in admitted(endpoints, loads, now, self._stale_after)]
        if self._equal:
            return [(address, float(MAX_WEIGHT)) for address in ready]
        speeds = {address: self._speed(address, rates) for address in ready}
        targets = target_weights(speeds, loads, now, self._stale_after)
        return [(a, self._toward(self._smooth.get(a), target)) for a, target in targets.items()]

    def _toward(self, current: float | None, target: float) -> float:
        return target if current is None else current + self._share * (target - current)

    def _speed(self, address: str, rates: Mapping[str, Rate]) -> float:
        """Prefill rate, tokens a second: learned where something was observed, else the catalogue's."""
        rate = rates.get(address)
        if rate and rate.observations and rate.prefill > 0:
            return rate.prefill
        return self._fleet.endpoints[address].prior.prefill

    def _worth_a_push(self, weights: Mapping[str, int]) -> bool:
        old = self._published
        if weights.keys() != old.keys():
            return True
        return any(abs(weight - old[a]) > self._settings.hysteresis * old[a] for a, weight in weights.items())
