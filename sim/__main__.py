"""`python -m sim -c FILE`: serve the file's emulated pools."""

from __future__ import annotations

import sys

from fleet.process import main
from sim.server import run

if __name__ == "__main__":
    sys.exit(main("sim", "Emulated Triton / TensorRT-LLM engines", run))
