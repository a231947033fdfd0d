"""The fleets that are simulated: `uniformN`, `mixedN`, or the emulated pools of a kvpilot.yaml.

Both named kinds have the same computing power: N times 20,480 prefill tokens a second. A uniform fleet has
N equal endpoints; a mixed one has as many of each of four generations, which relate as 2.5 : 1.6 : 1.0 : 0.7
(two of each in `mixed8`: 35,310, 22,599, 14,124 and 9,887 tokens a second).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleet import settings_file
from fleet.errors import ConfigError
from fleet.gpu import CATALOGUE
from fleet.model import Endpoint, Hardware, Rate
from fleet.settings import pool_field
from sim.capacity import PREFILL_OVERHEAD, TOKENS_PER_BLOCK, Capacity, capacity, kv_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.settings import ModelSettings, PoolSettings, VersionSettings

NAMES = ("uniform8", "mixed8")
"""Examples of what `fleet` understands besides files; any other number of endpoints will do."""

REFERENCE_RATE = Rate(prefill=20_480.0, tpot=0.0102)
"""Of one endpoint of a uniform fleet: about what the GPU catalogue expects of a 32B model on four H100s."""

PARAMETERS = 32e9
GPUS = 4
"""What KV caches are computed from, as for emulated pools: 982,000 tokens where cards have 80 GB, 2,516,000
on B200s and 368,000 on A100s of 40 GB."""

LARGEST = 1024
"""Most endpoints of one fleet: what the picker must cope with."""

MAX_REQUESTS = 256
"""Batch slots of every endpoint: TensorRT-LLM's usual `max_batch_size`."""

_UNIFORM = (("H100-80GB", 1.0),)
_GENERATIONS = (("B200-180GB", 2.5), ("H100-80GB", 1.6), ("A100-80GB", 1.0), ("A100-40GB", 0.7))
_KINDS = {"uniform": _UNIFORM, "mixed": _GENERATIONS}
_NAMED = re.compile(r"(uniform|mixed)([1-9]\d{0,3})", re.ASCII)
_EXPECTED = f"expected uniformN or mixedN (N from 1 to {LARGEST}), such as {', '.join(NAMES)}, or a file"


@dataclass(frozen=True, slots=True)
class SimFleet:
    """Endpoints that may all serve every request, and what each is; `prior` of an endpoint is its truth."""

    name: str
    endpoints: tuple[Endpoint, ...]
    capacities: tuple[Capacity, ...]


def fleet(name: str) -> SimFleet:
    """The fleet of that name, or in that file. Raises ConfigError."""
    named = _NAMED.fullmatch(name)
    if named and int(named[2]) <= LARGEST:
        return _generated(name, _KINDS[named[1]], int(named[2]))
    if not Path(name).is_file():
        raise ConfigError("command line", "--fleet", name, _EXPECTED)
    return _from_file(Path(name))


def _generated(name: str, kinds: Sequence[tuple[str, float]], number: int) -> SimFleet:
    chosen = [kinds[n % len(kinds)] for n in range(number)]
    scale = number / sum(speed for _, speed in chosen)
    members = [
        _member(n, "sim", gpu, _at_speed(REFERENCE_RATE, speed * scale))
        for n, (gpu, speed) in enumerate(chosen)
    ]
    return _joined(name, members)


def _at_speed(rate: Rate, speed: float) -> Rate:
    return Rate(rate.prefill * speed, rate.tpot / speed)


def _member(number: int, model: str, gpu: str, rate: Rate) -> tuple[Endpoint, Capacity]:
    hardware = Hardware(gpu, GPUS)
    size = Capacity(
        rate=rate,
        kv_blocks=kv_tokens(hardware, PARAMETERS) // TOKENS_PER_BLOCK,
        max_requests=MAX_REQUESTS,
        gpu_bytes=int(CATALOGUE[gpu].memory_gb * 1e9 * GPUS),
        overhead=PREFILL_OVERHEAD,  # the host's work: no GPU makes it shorter
    )
    return Endpoint(_address(number), model, "v1", gpu.lower(), hardware, prior=rate), size


def _address(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}:8000"


def _joined(name: str, members: Sequence[tuple[Endpoint, Capacity]]) -> SimFleet:
    return SimFleet(name, tuple(e for e, _ in members), tuple(c for _, c in members))


def _from_file(path: Path) -> SimFleet:
    """The emulated pools of the file's one model, of whatever version: a route has chosen none of them."""
    settings = settings_file.load(path)
    source = str(path)
    if len(settings.models) > 1:
        raise ConfigError(source, "models", len(settings.models), "expected one model: a fleet serves one")
    pools = [(m, v, p) for m, v, p in settings.pools() if p.emulated is not None]
    if not pools:
        raise ConfigError(source, "models", None, "expected a pool with `emulated`")
    members: list[tuple[Endpoint, Capacity]] = []
    for model, version, pool in pools:
        members += _pool(source, model, version, pool, len(members))
    return _joined(source, members)


def _pool(
    source: str, model: ModelSettings, version: VersionSettings, pool: PoolSettings, first: int
) -> list[tuple[Endpoint, Capacity]]:
    size = capacity(model, pool)
    if not size.kv_blocks:
        field = pool_field(model, version, pool, "tensor_parallel")
        need = f"expected more GPUs: {model.parameters_billion:g}B weights leave no room for a KV cache"
        raise ConfigError(source, field, pool.tensor_parallel, need)
    count = pool.emulated.count if pool.emulated else 0
    addresses = pool.endpoints or tuple(_address(first + n) for n in range(count))
    return [
        (Endpoint(a, model.name, version.name, pool.name, pool.hardware, prior=size.rate), size)
        for a in addresses
    ]
