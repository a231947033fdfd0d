"""The log file of one child: where its output goes, and the last thing it said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 8192  # enough for the last line of a traceback or of Envoy's longest complaint
_LINE_CHARACTERS = 300  # an announcement stays one readable line


class ChildLog:
    """Appends over restarts; `last_line` looks only at what was written since `mark`."""

    def __init__(self, path: Path) -> None:
        """Opens (and makes) the file, readable by this user only."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._start = 0

    def mark(self) -> None:
        """A new run begins here."""
        self._start = os.fstat(self.descriptor).st_size

    def last_line(self) -> str:
        """The last line of this run that says anything, printable; empty if it said nothing."""
        end = os.fstat(self.descriptor).st_size
        start = max(self._start, end - _TAIL_BYTES)
        text = os.pread(self.descriptor, end - start, start).decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = lines[-1][:_LINE_CHARACTERS] if lines else ""
        return "".join(character if character.isprintable() else " " for character in last)

    def close(self) -> None:
        """Let go of the file; it stays."""
        os.close(self.descriptor)
