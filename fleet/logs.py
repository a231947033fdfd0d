"""How the servers' log lines look: for people, or as one JSON object a line.

A line is a message and, where it speaks of one thing, facts: `log.info("...", extra=facts(endpoint=...))`.
Facts are figures and names. Prompt text, session ids and keys never are.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

Format = Literal["text", "json"]

LONGEST = 200
"""Characters of one text among the facts: some come from clients."""


def configure(level: str, form: Format) -> None:
    """Log everything from `level` on to standard error."""
    logging.basicConfig(level=level.upper(), handlers=[handler(form)])


def handler(form: Format) -> logging.Handler:
    """Lines of this form on standard error."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    return made


def facts(**known: object) -> dict[str, object]:
    """`extra` for a log call."""
    return {_KEY: known}


class TextFormatter(logging.Formatter):
    """For people: the facts follow the message as key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and what belongs to it."""
        head, *rest = super().format(record).split("\n", 1)
        pairs = [f"{key}={_text(value)}" for key, value in _facts_of(record).items()]
        return "\n".join([" ".join([head, *pairs]), *rest])


class JsonFormatter(logging.Formatter):
    """For machines: `at` (UTC), `level`, `logger`, `message`, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: _plain(value) for key, value in _facts_of(record).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


_KEY = "facts"


def _facts_of(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = getattr(record, _KEY, {})
    return found


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if value is None or isinstance(value, int):
        return value
    return str(value)[:LONGEST]


def _text(value: object) -> str:
    plain = _plain(value)
    if isinstance(plain, str) and plain.isascii() and plain.isprintable() and plain and " " not in plain:
        return plain
    return json.dumps(plain)
