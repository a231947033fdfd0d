"""The picker, except that SIGUSR1 makes its event loop stand still for good, and SIGUSR2 its picks hang.

A second SIGUSR2 lets them through again.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

from ext_proc.app import run
from ext_proc.server import PickerService
from fleet.process import main

FOR_GOOD = 3600.0


def stand_still(*_: object) -> None:
    time.sleep(FOR_GOOD)


class Hanging:
    """A call whose answers are not taken while picks hang."""

    picks_hang = False

    def __init__(self, context: Any) -> None:
        self.read = context.read
        self._context = context

    async def write(self, data: bytes) -> None:
        if Hanging.picks_hang:
            await asyncio.sleep(FOR_GOOD)
        await self._context.write(data)

    @staticmethod
    def toggle(*_: object) -> None:
        Hanging.picks_hang = not Hanging.picks_hang


class HangingService(PickerService):
    async def _process(self, request: object, context: Any, cluster: str = "") -> None:
        await super()._process(request, Hanging(context), cluster)  # type: ignore[arg-type]


if __name__ == "__main__":
    import ext_proc.app

    vars(ext_proc.app)["PickerService"] = HangingService
    signal.signal(signal.SIGUSR1, stand_still)
    signal.signal(signal.SIGUSR2, Hanging.toggle)
    sys.exit(main("stuck_picker", "a picker that can be stopped from moving", run))
