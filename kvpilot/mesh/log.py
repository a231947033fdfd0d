"""The log file of one child: where its output goes, and the last thing it said."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 8192  # enough for the last line of a traceback or of Envoy's longest complaint
_LINE_CHARACTERS = 300  # an announcement stays one readable line

_RECORD = re.compile(r"\[?\d{4}-\d\d-\d\d[ T]\d\d:|\d+:[A-Z] \d\d? [A-Z][a-z]{2} \d{4} ")
"""How a log record begins: in Python and Envoy with the date, in Redis with its process and role."""

_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception|Group|Interrupt|Exit|Timeout)(?:: |$)")
"""What a traceback ends with; the message behind it may go on for lines."""

_FRAME = re.compile(r"^[\s|]*(?:\+[-+]+(?: (?:\d+|\.\.\.) -+)?\s*$)?")
"""What an exception group is drawn with: whole lines, and the margin of others."""


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
        """The line of this run that says best how it stands, printable; empty if it said nothing.

        That is the last one, but of a traceback the exception itself.
        """
        last = ""
        exception = False
        for line in self._lines():
            if _EXCEPTION.match(line):
                last, exception = line, True
            elif not exception or _RECORD.match(line):
                last, exception = line, False
        return last

    def find(self, text: str) -> str:
        """The last line of this run that has `text`, from there on, printable; else empty."""
        found = [line[line.index(text) :] for line in self._lines() if text in line]
        return found[-1] if found else ""

    def _lines(self) -> list[str]:
        """The last ones of this run that say anything, oldest first."""
        end = os.fstat(self.descriptor).st_size
        start = max(self._start, end - _TAIL_BYTES)
        text = os.pread(self.descriptor, end - start, start).decode("utf-8", "replace")
        lines = (_FRAME.sub("", line).strip() for line in text.splitlines())
        return [_printable(line[:_LINE_CHARACTERS]) for line in lines if line]

    def close(self) -> None:
        """Let go of the file; it stays."""
        os.close(self.descriptor)


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else " " for character in line)
