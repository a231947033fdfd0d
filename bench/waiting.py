"""CPU time of holding requests: what one dispatch and one arrival take with so many held. JSON on stdout.

    .venv/bin/python bench/waiting.py --endpoints 8 100 --held 100 1000

A dispatch where every queue is long (`full`); where an endpoint is ready that none of the held may use, and
no two of them share their candidates (`in_vain`); and where one goes to an endpoint that became ready, with
the news of both and a pick that fills the endpoint again (`goes`).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from ext_proc.waiting import DISPATCH_SECONDS, FED_SECONDS, WaitingRoom
from fleet.settings import PickerSettings
from sim import fleets

if TYPE_CHECKING:
    from collections.abc import Callable

    from ext_proc.waiting import Held

RATE = fleets.REFERENCE_RATE.prefill  # tokens a second
BLOCKS = 16
LATER = 1.0 + DISPATCH_SECONDS
FILL_SECONDS = 1000.0  # of prefill at every endpoint, so that none becomes ready by itself


class Crowd:
    """`held` requests that wait for `endpoints` full endpoints."""

    def __init__(self, endpoints: int, held: int, places: int = 1_000_000) -> None:
        fleet = fleets.fleet(f"uniform{endpoints}").endpoints
        self.picker = Picker(PickerSettings(), fleet)
        self.room = WaitingRoom(self.picker, longest=1e6, places=places)
        self.candidates = tuple(endpoint.address for endpoint in fleet)
        self.number = 0
        self.went: list[Held] = []
        self.fill = {address: self.place((address,), FILL_SECONDS * RATE) for address in self.candidates}
        for _ in range(held):
            self.arrive(self.candidates)

    def request(self, candidates: tuple[str, ...], tokens: float) -> RoutingRequest:
        """A prompt that nobody has seen."""
        self.number += 1
        blocks = range(self.number * BLOCKS, self.number * BLOCKS + BLOCKS)
        return RoutingRequest(candidates, tokens, blocks, tokens / BLOCKS)

    def place(self, candidates: tuple[str, ...], tokens: float) -> str:
        """Past the room; the pick's id."""
        decision = self.picker.pick(self.request(candidates, tokens), 0.0)
        if decision is None:
            raise RuntimeError("every endpoint is known, so one of them must be picked")
        return decision.id

    def arrive(self, candidates: tuple[str, ...]) -> None:
        """One more that is held."""
        held = self.room.arrive(self.request(candidates, RATE * FED_SECONDS), 1.0)
        if held.settled:
            raise RuntimeError("every queue is long, so it must be held")
        held.wake = lambda: self.went.append(held)

    def gone(self) -> str:
        """The pick of the only one that was let go since this was asked last."""
        (held,) = self.went
        self.went.clear()
        if held.decision is None:
            raise RuntimeError("its endpoints are known")
        return held.decision.id


def microseconds(do: Callable[[], object], times: int = 50) -> float:
    """CPU time of one call, the mean of several: the clock is too coarse for one."""
    began = time.process_time()
    for _ in range(times):
        do()
    return (time.process_time() - began) / times * 1e6


def costs(endpoints: int, held: int) -> dict[str, float]:
    """Microseconds by what happens."""
    crowd = Crowd(endpoints, held)
    full = microseconds(lambda: crowd.room.dispatch(LATER))
    arrival = microseconds(lambda: crowd.arrive(crowd.candidates))

    def one_becomes_ready() -> None:
        last = crowd.candidates[-1]
        crowd.picker.cancel(crowd.fill[last], LATER)
        crowd.room.dispatch(LATER)
        crowd.picker.cancel(crowd.gone(), LATER)
        crowd.fill[last] = crowd.place((last,), FILL_SECONDS * RATE)

    goes = microseconds(one_becomes_ready)
    other = Crowd(endpoints + 1, 0, places=held)
    other.picker.cancel(other.fill[other.candidates[-1]], LATER)
    for _ in range(held):
        other.arrive(other.candidates[:-1])
    in_vain = microseconds(lambda: other.room.dispatch(LATER))
    found = {"full": full, "in_vain": in_vain, "goes": goes, "arrival": arrival}
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[8, 100])
    parser.add_argument("--held", type=int, nargs="+", default=[100, 1000])
    options = parser.parse_args()
    found = [
        {"endpoints": endpoints, "held": held, "microseconds": costs(endpoints, held)}
        for endpoints in options.endpoints
        for held in options.held
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
