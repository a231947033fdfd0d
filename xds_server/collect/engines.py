"""What each engine's Prometheus series mean. The table is data: a new engine is a new row.

One server may hold several models. Series that carry the endpoint's own model name win; without any (Triton's
backend labels them by its internal step, `tensorrt_llm`) all count. Counts of several series are summed,
because every one of them shares the endpoint's GPUs; the block size is the largest. A series that is missing
leaves its field at 0, which consumers read as "the engine does not say".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.errors import ScrapeError
from fleet.model import Load

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Series:
    """One Prometheus series: its family and, where the family holds several, the label that tells them."""

    family: str
    label: str = ""
    value: str = ""


def _triton(family: str, label: str, value: str) -> tuple[Series, ...]:
    return (Series(f"nv_trt_llm_{family}", label, value),)


def _trtllm(name: str) -> tuple[Series, ...]:
    """trtllm-serve prefixes its names since 1.3; earlier ones are bare."""
    return Series(f"trtllm_{name}"), Series(name)


ENGINES: Mapping[str, Mapping[str, tuple[Series, ...]]] = {
    "triton": {
        "kv_blocks_used": _triton("kv_cache_block_metrics", "kv_cache_block_type", "used"),
        "kv_blocks_max": _triton("kv_cache_block_metrics", "kv_cache_block_type", "max"),
        "tokens_per_block": _triton("kv_cache_block_metrics", "kv_cache_block_type", "tokens_per"),
        "running": _triton("request_metrics", "request_type", "scheduled"),
        "waiting": _triton("request_metrics", "request_type", "waiting"),
        "max_requests": _triton("request_metrics", "request_type", "max"),
    },
    "trtllm-serve": {
        "kv_blocks_used": _trtllm("kv_cache_used_blocks"),
        "kv_blocks_max": _trtllm("kv_cache_max_blocks"),
        "tokens_per_block": _trtllm("kv_cache_tokens_per_block"),
        "running": _trtllm("num_requests_running"),
        "waiting": _trtllm("num_requests_waiting"),
        "max_requests": _trtllm("max_num_active_requests"),
    },
}
"""Engine to field of `Load` to the series that may hold it, the preferred first."""

_SIZES = frozenset({"tokens_per_block"})  # fields that describe, rather than count: never summed

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$", re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)
_MODEL_LABELS = ("model", "model_name")
_LARGEST = 2**31  # far above any real count, and what a record can carry


def read_load(engine: str, model: str, text: str, now: float) -> Load:
    """One endpoint's `Load` from its Prometheus text, read at `now` (Unix seconds).

    Raises ScrapeError where the text is not Prometheus' format or a needed value makes no sense.
    """
    row = ENGINES[engine]
    samples = _samples(text, {s.family for choices in row.values() for s in choices})

    def total(field: str) -> int:
        return _total(field, row[field], samples, model)

    return Load(
        at=now,
        kv_blocks_used=total("kv_blocks_used"),
        kv_blocks_max=total("kv_blocks_max"),
        tokens_per_block=total("tokens_per_block"),
        running=total("running"),
        waiting=total("waiting"),
        max_requests=total("max_requests"),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    family: str
    labels: Mapping[str, str]
    value: int

    def is_of(self, series: Series) -> bool:
        return self.family == series.family and (
            not series.label or self.labels.get(series.label) == series.value
        )

    def is_about(self, model: str) -> bool:
        return any(self.labels.get(label) == model for label in _MODEL_LABELS)


def _samples(text: str, families: set[str]) -> list[_Sample]:
    """The samples of `families`; other lines are only glanced at, since most of a page is not for us."""
    found: list[_Sample] = []
    looked_at_one = False
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if looked_at_one and name not in families:
            continue
        looked_at_one = True
        match = _SAMPLE.match(line)
        if match is None:
            raise ScrapeError(f"not a Prometheus line: {line[:60]!r}")
        if name in families:
            found.append(_Sample(name, dict(_LABEL.findall(match[2] or "")), _count(line, match[3])))
    return found


def _count(line: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError as error:
        raise ScrapeError(f"not a number: {line[:100]!r}") from error
    if not 0 <= value < _LARGEST:  # false for NaN, too
        raise ScrapeError(f"a count out of range: {line[:100]!r}")
    return int(value)


def _total(field: str, choices: tuple[Series, ...], samples: list[_Sample], model: str) -> int:
    for series in choices:
        matching = [s for s in samples if s.is_of(series)]
        if matching:
            values = [s.value for s in matching if s.is_about(model)] or [s.value for s in matching]
            return max(values) if field in _SIZES else min(sum(values), _LARGEST)
    return 0
