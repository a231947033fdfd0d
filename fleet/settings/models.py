"""Models, versions and pools: what is served where."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fleet import checks
from fleet.address import join, split
from fleet.gpu import prior_rate
from fleet.model import Hardware, Rate
from fleet.settings.admission import AdmissionSettings
from fleet.settings.section import Engine, Gpu, IpPort, Name, Section, Zone

TRITON_METRICS_PORT = 8002
"""Where Triton serves metrics unless told otherwise."""


class EmulatedSettings(Section):
    """Serve this pool by emulated engines on this machine instead of real endpoints."""

    count: int = Field(1, ge=1, le=64, description="emulated endpoints; as many as `endpoints`, if set")
    speed: float = Field(1.0, ge=0.001, le=1_000_000, description="multiplies the catalogue's rates")
    kv_tokens: int | None = Field(
        None, ge=1024, le=10**9, description="KV capacity in tokens; default from GPU memory"
    )
    max_requests: int = Field(256, ge=1, le=65_536, description="batch slots")
    grpc: bool = Field(
        False, description="serve KServe's gRPC, too; `kvpilot up` gives each engine an address for it"
    )


class PoolSettings(Section):
    """Endpoints of one version with the same hardware, sharding and engine."""

    name: Name = Field(description=checks.NAME)
    gpu: Gpu = Field(description=checks.GPU)
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that one copy is sharded over")
    zone: Zone = Field("", description="where its endpoints run, as in us-east-1a; '' where that is all one")
    engine: Engine = Field("triton", description="what serves: decides where and how metrics are read")
    endpoints: tuple[IpPort, ...] = Field((), description="where requests go, ip:port each")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="default: 8002 triton, else the same")
    grpc_port: int | None = Field(
        None, ge=1, le=65535, description="where each serves KServe's gRPC, 8001 in Triton; default: nowhere"
    )
    grpc_endpoints: tuple[IpPort, ...] = Field(
        (), description="gRPC addresses in the order of `endpoints`, where `grpc_port` cannot serve them all"
    )
    emulated: EmulatedSettings | None = None

    @field_validator("emulated")
    @classmethod
    def _counts_endpoints(
        cls, emulated: EmulatedSettings | None, info: ValidationInfo
    ) -> EmulatedSettings | None:
        number = len(info.data.get("endpoints", ()))
        if emulated is None or not number or emulated.count == number:
            return emulated
        if "count" in emulated.model_fields_set:
            raise checks.mistake("count", emulated.count, f"{number}, as many as `endpoints`")
        return emulated.model_copy(update={"count": number})

    @model_validator(mode="after")
    def _has_endpoints(self) -> PoolSettings:
        if not self.endpoints and self.emulated is None:
            raise checks.mistake("endpoints", None, "at least one ip:port, or `emulated`")
        if self.emulated is not None and self.engine != "triton":
            raise checks.mistake("engine", self.engine, "triton with `emulated`: its metrics are Triton's")
        if self.emulated is not None and self.metrics_port is not None:
            raise checks.mistake(
                "metrics_port", self.metrics_port, "none with `emulated`: one port serves all"
            )
        return self

    @model_validator(mode="after")
    def _has_one_grpc_address_per_endpoint(self) -> PoolSettings:
        if self.grpc_port is not None and self.grpc_endpoints:
            raise checks.mistake("grpc_port", self.grpc_port, "none beside `grpc_endpoints`")
        if self.grpc_port is not None and not self.endpoints:
            raise checks.mistake(
                "grpc_port", self.grpc_port, "`emulated.grpc` where there are no `endpoints`"
            )
        if self.grpc_endpoints and len(self.grpc_endpoints) != len(self.endpoints):
            need = f"one for each of `endpoints`, which are {len(self.endpoints)}"
            raise checks.mistake("grpc_endpoints", len(self.grpc_endpoints), need)
        return self

    @property
    def grpc_addresses(self) -> tuple[str, ...]:
        """Each endpoint's gRPC address, in the order of `endpoints`; none at all where gRPC is not served."""
        if self.grpc_port is None:
            return self.grpc_endpoints
        return tuple(join(split(address)[0], self.grpc_port) for address in self.endpoints)

    @property
    def hardware(self) -> Hardware:
        """What each endpoint runs on."""
        return Hardware(self.gpu, self.tensor_parallel)

    def prior(self, parameters_billion: float) -> Rate:
        """What each endpoint should do for a model of that size, at the emulation's speed."""
        speed = 1.0 if self.emulated is None else self.emulated.speed
        return prior_rate(self.hardware, parameters_billion * 1e9, speed)

    def metrics_url(self, address: str) -> str:
        """Where this endpoint's Prometheus text is read."""
        if self.emulated is not None:
            return f"http://{address}/metrics"  # one port serves all
        host, port = split(address)
        if self.engine == "triton":
            return f"http://{join(host, self.metrics_port or TRITON_METRICS_PORT)}/metrics"
        return f"http://{join(host, self.metrics_port or port)}/prometheus/metrics"


class VersionSettings(Section):
    """One arm of the rollout."""

    name: Name = Field(description=checks.NAME)
    weight: int = Field(100, ge=0, le=10_000, description="share of the model's requests")
    pools: tuple[PoolSettings, ...] = Field(min_length=1, description="a list of at least one pool")


class ModelSettings(Section):
    """A model that clients name."""

    name: Name = Field(description=checks.NAME)
    parameters_billion: float = Field(
        70, ge=0.001, le=100_000, description="size of the model; scales the prior rates only"
    )
    versions: tuple[VersionSettings, ...] = Field(min_length=1, description="a list of at least one version")
    admission: AdmissionSettings | None = Field(
        None, description="in place of the fields of `admission` that are set here"
    )

    @model_validator(mode="after")
    def _has_traffic(self) -> ModelSettings:
        if not any(version.weight for version in self.versions):
            raise checks.mistake("versions", None, "at least one with a weight above 0")
        return self
