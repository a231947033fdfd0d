"""What the fleet is made of: endpoints, their hardware, and which cluster each belongs to.

Everything is frozen. Topology (this module's `Fleet`) comes from discovery only; records that say how an
endpoint is doing (`Load`, `Rate`, `Weight`, `Traffic`) annotate endpoints by address, carry the time they
were read, and can never introduce one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one endpoint runs on. `gpu` is a key of `fleet.gpu.CATALOGUE`."""

    gpu: str
    tensor_parallel: int = 1  # GPUs that one copy of the model is sharded over

    def __str__(self) -> str:
        return f"{self.gpu}-TP{self.tensor_parallel}"


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast an endpoint is: tokens a second of prefill, and seconds per output token of one stream."""

    prefill: float
    tpot: float
    at: float = 0.0  # when it was learned; 0 for a prior
    observations: int = 0


RATE_STALE_SECONDS = 3600.0
"""What was learned longer ago may have been another machine behind the same address."""

UNKNOWN_RATE = Rate(prefill=10_000.0, tpot=0.02)
"""Assumed of hardware nobody described: about a 32B model on four A100s, to be measured away."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One serving pod. `address` is `ip:port` (IPv6 in brackets): its identity, and what Envoy dials.

    Its gRPC port is no endpoint of its own: whatever is dialled at `grpc_address` counts for `address`.
    """

    address: str
    model: str
    version: str
    pool: str
    hardware: Hardware
    engine: str = "triton"
    metrics_url: str = ""
    prior: Rate = UNKNOWN_RATE  # what the hardware should do, before anything was measured
    zone: str = ""  # where it runs; '' where nobody says
    grpc_address: str = ""  # where it serves KServe's gRPC; '' where it does not

    @property
    def cluster(self) -> str:
        """The Envoy cluster this endpoint is in: one per version of a model."""
        return cluster_name(self.model, self.version)


@dataclass(frozen=True, slots=True)
class Version:
    """One arm of a model's rollout and the endpoints that serve it. `weight` is its share of requests."""

    name: str
    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model that clients name."""

    name: str
    versions: tuple[Version, ...]


@dataclass(frozen=True)
class Fleet:
    """Every model, version and endpoint there is."""

    models: tuple[Model, ...] = field(default=())

    @cached_property
    def endpoints(self) -> dict[str, Endpoint]:
        """All endpoints by address."""
        return {e.address: e for m in self.models for v in m.versions for e in v.endpoints}

    @cached_property
    def clusters(self) -> dict[str, tuple[Endpoint, ...]]:
        """Endpoints by Envoy cluster name."""
        return {cluster_name(m.name, v.name): v.endpoints for m in self.models for v in m.versions}

    @cached_property
    def grpc_clusters(self) -> dict[str, tuple[Endpoint, ...]]:
        """The endpoints that serve gRPC, by the cluster that dials them so; only clusters that have any."""
        found = {
            grpc_cluster_name(m.name, v.name): tuple(e for e in v.endpoints if e.grpc_address)
            for m in self.models
            for v in m.versions
        }
        return {name: endpoints for name, endpoints in found.items() if endpoints}


def cluster_name(model: str, version: str) -> str:
    """The Envoy cluster of one version; the picker reads the same name back from `xds.cluster_name`."""
    return f"{model}/{version}"


def grpc_cluster_name(model: str, version: str) -> str:
    """The Envoy cluster of one version's gRPC addresses: no version's own, since no name holds a slash."""
    return f"{cluster_name(model, version)}/grpc"


@dataclass(frozen=True, slots=True)
class Load:
    """One scrape of an endpoint. `at` is Unix time in seconds; KV figures are in the engine's own blocks.

    A scrape that failed is a `Load` too, `ready` false and `reason` set, so that consumers see it as fresh
    news and not as silence.
    """

    at: float
    ready: bool = True
    reason: str = ""
    kv_blocks_used: int = 0
    kv_blocks_max: int = 0
    tokens_per_block: int = 0
    running: int = 0
    waiting: int = 0
    max_requests: int = 0  # batch slots; 0 means the engine does not say

    @property
    def kv_tokens(self) -> int:
        """KV capacity in tokens; 0 where the engine does not say."""
        return self.kv_blocks_max * self.tokens_per_block

    @property
    def kv_used(self) -> float:
        """Share of the KV blocks held by running requests, 0..1 (reusable cached blocks count as free)."""
        return self.kv_blocks_used / self.kv_blocks_max if self.kv_blocks_max else 0.0


@dataclass(frozen=True, slots=True)
class Weight:
    """The endpoint's share of its cluster's traffic when no picker chooses; a positive integer."""

    at: float
    value: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the picker saw of an endpoint lately. TTFT in seconds; ratios 0..1; None where unseen."""

    at: float
    in_flight: int = 0
    match_ratio: float | None = None
    ttft_p50: float | None = None
    ttft_p95: float | None = None
