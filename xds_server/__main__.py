"""`python -m xds_server -c FILE`: the xDS server."""

from __future__ import annotations

import sys

from fleet.process import main
from xds_server.app import run

if __name__ == "__main__":
    sys.exit(main("xds_server", "kvpilot's xDS server: collector, weights and ADS in one", run))
