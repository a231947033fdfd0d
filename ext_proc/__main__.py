"""`python -m ext_proc -c FILE [--workers N]`: the picker."""

from __future__ import annotations

import sys

from ext_proc.workers import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
