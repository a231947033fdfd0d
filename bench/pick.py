"""CPU of one pick, without gRPC and without a network, by the number of endpoints.

    .venv/bin/python bench/pick.py --endpoints 8 100 1000 --picks 2000

One object of JSON on stdout: microseconds of CPU per pick of a prompt of 16 blocks, half of them shared by
all prompts, at eight requests a second and endpoint, each in flight for 0.3 s.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque

from ext_proc.picker import Picker
from ext_proc.request import RoutingRequest
from fleet.model import Endpoint, Hardware, Rate
from fleet.settings import PickerSettings

BLOCKS = 16
SHARED_BLOCKS = 8
RATE_PER_ENDPOINT = 8.0  # requests a second
IN_FLIGHT_SECONDS = 0.3


def microseconds_per_pick(endpoints: int, picks: int) -> float:
    """Mean CPU time of `picks` picks among so many endpoints."""
    settings = PickerSettings()
    fleet = [
        Endpoint(
            f"10.0.{n // 256}.{n % 256}:80", "m", "v", "p", Hardware("H100-80GB"), prior=Rate(20_000, 0.01)
        )
        for n in range(endpoints)
    ]
    picker = Picker(settings, fleet)
    candidates = tuple(endpoint.address for endpoint in fleet)
    running: deque[tuple[str, float]] = deque()
    spent = now = 0.0
    for number in range(picks):
        now += 1 / (RATE_PER_ENDPOINT * endpoints)
        blocks = [n if n < SHARED_BLOCKS else (number + 1) * BLOCKS + n for n in range(BLOCKS)]
        tokens = BLOCKS * settings.tokens_per_block
        request = RoutingRequest(candidates, tokens, blocks, settings.tokens_per_block)
        began = time.process_time()
        decision = picker.pick(request, now)
        spent += time.process_time() - began
        if decision is None:
            raise RuntimeError("every endpoint is known, so one of them must be picked")
        running.append((decision.id, now + IN_FLIGHT_SECONDS))
        while running[0][1] <= now:
            id_, _ = running.popleft()
            picker.first_token(id_, now)
            picker.finish(id_, now)
    return spent / picks * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[8, 100, 1000])
    parser.add_argument("--picks", type=int, default=2000)
    options = parser.parse_args()
    found = {number: round(microseconds_per_pick(number, options.picks), 1) for number in options.endpoints}
    print(json.dumps({"microseconds_per_pick": found, "picks": options.picks}))


if __name__ == "__main__":
    main()
