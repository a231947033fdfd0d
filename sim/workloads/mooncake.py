"""Traces in Mooncake's format: one JSON object a line, for one request each.

`timestamp` in ms, `input_length` and `output_length` in tokens, `hash_ids` one per 512 tokens of the prompt,
equal where two prompts are equal up to there; the last stands for the remainder and is no whole block.
Other fields are ignored. The published traces of real traffic tell arrivals to 3 s only.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeGuard

from xxhash import xxh3_64_intdigest

from fleet.errors import ConfigError
from sim.policy import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from random import Random

SUFFIXES = (".jsonl", ".jsonl.gz")

BLOCK_TOKENS = 512
"""Tokens per hash id, by the format."""

ROUNDED_TO_MS = 3000
"""What the published traces of real traffic round arrivals to."""

_ROUNDING_SLACK_MS = 100  # so much nearer may two rounded times lie: theirs are not exact multiples

_TOKENS_MAX = 10**9  # beyond any model's context: not a length
_TIMESTAMP_MAX = 10**15  # ms: beyond any clock's epoch, and exact in a float


@dataclass(frozen=True, slots=True)
class Request:
    """One line of a trace, as it stands there."""

    timestamp: float  # ms
    input_length: int  # tokens
    output_length: int  # tokens
    hash_ids: tuple[int, ...]


def read(path: Path) -> list[Request]:
    """A trace's requests in the order of its lines. Raises ConfigError for what is none, naming the line."""
    requests = []
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    requests.append(_Line(path, number).request(line))
    except (OSError, EOFError, zlib.error) as error:
        problem = getattr(error, "strerror", None) or error
        expected = f"cannot be read ({problem}); expected a trace, {' or '.join(SUFFIXES)}"
        raise ConfigError(str(path), "", None, expected) from error
    if not requests:
        raise ConfigError(str(path), "", None, "holds no request; expected one JSON object a line")
    return requests


def jobs(requests: Sequence[Request], random: Random) -> Iterator[Job]:
    """The requests of a trace, from its first arrival on; rounded arrivals are spread over what they hide."""
    first = min(request.timestamp for request in requests)
    hidden = ROUNDED_TO_MS if _are_rounded(requests) else 0
    for request in requests:
        yield Job(
            id=0,
            arrival=(request.timestamp - first + random.random() * hidden) / 1000,
            prompt_tokens=request.input_length,
            output_tokens=request.output_length,
            blocks=_chained(request.hash_ids[: request.input_length // BLOCK_TOKENS]),
            block_tokens=BLOCK_TOKENS,
        )


def _are_rounded(requests: Sequence[Request]) -> bool:
    times = sorted({request.timestamp for request in requests})
    return all(later - time >= ROUNDED_TO_MS - _ROUNDING_SLACK_MS for time, later in pairwise(times))


def _chained(hash_ids: Sequence[int]) -> tuple[int, ...]:
    """Names that stand for all before them, also where a trace's own ids do not."""
    names = []
    name = 0
    for hash_id in hash_ids:
        name = xxh3_64_intdigest(hash_id.to_bytes(8, "little"), name)
        names.append(name)
    return tuple(names)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where a mistake is, for the person who has to mend it."""

    path: Path
    number: int

    def request(self, text: bytes) -> Request:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._wrong("", None, "is not JSON; expected an object with a request") from error
        if not isinstance(data, dict):
            raise self._wrong("", data, "expected a JSON object")
        timestamp = data.get("timestamp")
        if not _is_time(timestamp):
            raise self._wrong("timestamp", timestamp, "expected the arrival in ms, 0 or more")
        tokens = self._tokens(data, "input_length")
        hash_ids = self._hash_ids(data.get("hash_ids"), tokens)
        return Request(timestamp, tokens, self._tokens(data, "output_length"), hash_ids)

    def _tokens(self, data: dict[str, object], field: str) -> int:
        value = data.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _TOKENS_MAX:
            raise self._wrong(field, value, "expected a number of tokens, 1 or more")
        return value

    def _hash_ids(self, value: object, tokens: int) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(_is_hash_id(item) for item in value):
            raise self._wrong("hash_ids", value, "expected a list of integers from 0 to 2^64 - 1")
        whole, with_rest = tokens // BLOCK_TOKENS, -(-tokens // BLOCK_TOKENS)
        if len(value) not in {whole, with_rest}:
            expected = f"expected {with_rest}, one per {BLOCK_TOKENS} of {tokens} input tokens"
            raise self._wrong("the number of hash_ids", len(value), expected)
        return tuple(value)

    def _wrong(self, field: str, value: object, expected: str) -> ConfigError:
        shown = value if value is None or isinstance(value, (int, float)) else _Shown(value)
        if field and value is None:
            expected = f"is missing; {expected}"
        return ConfigError(f"{self.path}, line {self.number}", field, shown, expected)


class _Shown:
    """A value in a message, cut to what a person reads."""

    def __init__(self, value: object) -> None:
        self._text = repr(value)

    def __repr__(self) -> str:
        return self._text if len(self._text) <= _SHOWN_CHARACTERS else f"{self._text[:_SHOWN_CHARACTERS]}..."


_SHOWN_CHARACTERS = 60


def _is_time(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= _TIMESTAMP_MAX  # false for NaN


def _is_hash_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64
