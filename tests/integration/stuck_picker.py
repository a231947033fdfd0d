"""The picker, except that SIGUSR1 makes its event loop stand still for good."""

from __future__ import annotations

import signal
import sys
import time

from ext_proc.app import run
from fleet.process import main

FOR_GOOD = 3600.0


def stand_still(*_: object) -> None:
    time.sleep(FOR_GOOD)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, stand_still)
    sys.exit(main("stuck_picker", "a picker that can be stopped from moving", run))
