"""`python -m ext_proc -c FILE`: the picker."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvloop

from ext_proc import app
from fleet import settings
from fleet.errors import KvpilotError


def main() -> int:
    """Run until stopped; 0, or 2 after one line about what is wrong."""
    parser = argparse.ArgumentParser(prog="ext_proc", description="kvpilot's endpoint picker for Envoy")
    parser.add_argument("-c", "--config", type=Path, required=True, help="kvpilot.yaml")
    path = parser.parse_args().config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(app.run(settings.load(path), str(path)))
    except KvpilotError as error:
        print(f"ext_proc: {error}", file=sys.stderr)  # noqa: T201 - the one line a user sees
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
