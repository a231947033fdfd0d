"""`python -m ext_proc -c FILE`: the picker."""

from __future__ import annotations

import sys

from ext_proc.app import run
from fleet.process import main

if __name__ == "__main__":
    sys.exit(main("ext_proc", "kvpilot's endpoint picker for Envoy", run))
