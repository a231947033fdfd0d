"""The base of every error that kvpilot raises on purpose, and those that packages share.

Third-party exceptions become one of them at the adapter, the cause kept.
"""

from __future__ import annotations


class KvpilotError(Exception):
    """Base of all. Its text is one line for a person: what is wrong, where, and what would be right."""


def first_of(errors: BaseExceptionGroup[KvpilotError]) -> KvpilotError:
    """The one to tell a person of, however deep in the group it lies: what ends a process is one line."""
    first = errors.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


class ConfigError(KvpilotError):
    """A user's setting cannot be used.

    `source` is the file (or variable) it came from, `field` its dotted path there, `value` what was found
    and `expected` what would be right.
    """

    def __init__(self, source: str, field: str, value: object, expected: str) -> None:
        where = f"{source}: {field}" if field else source
        found = "" if value is None else f" is {value!r}"
        super().__init__(f"{where}{found}: {expected}")


class StoreError(KvpilotError):
    """The store (Redis) did not answer, or refused; what was asked of it did not happen."""


class RecordError(KvpilotError):
    """Bytes read from the store are not a record this version understands."""


class StartError(KvpilotError):
    """A server or child process cannot start: a port is taken, a program is missing."""


class ScrapeError(KvpilotError):
    """An endpoint's metrics could not be read or made no sense."""


class UnreadableRequestError(KvpilotError):
    """A request body that no parser understands. It goes on as it came, routed by weights.

    `reason` is a short fixed word for counters; nothing of the body is kept.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"request body cannot be read: {reason}")
        self.reason = reason
