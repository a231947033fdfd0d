"""`python -m sim -c FILE`: serve the file's emulated pools until SIGTERM or SIGINT.

Exit status 2, with one line on stderr, where the file or an address cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from fleet import settings
from fleet.errors import KvpilotError
from sim.server import EmulatedEndpoint, emulated_endpoints, serving

log = logging.getLogger("sim")


async def serve(endpoints: dict[str, EmulatedEndpoint]) -> None:
    """Serve until a signal says to end. Raises StartError where an address cannot be had."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with serving(endpoints):
        log.info("emulating %d endpoints: %s", len(endpoints), ", ".join(endpoints))
        await ended.wait()


def main() -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sim", description="Serve emulated LLM engines.")
    parser.add_argument("-c", "--config", type=Path, required=True, help="kvpilot.yaml")
    path = parser.parse_args().config
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        uvloop.run(serve(emulated_endpoints(settings.load(path), str(path))))
    except KvpilotError as error:
        sys.stderr.write(f"sim: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
