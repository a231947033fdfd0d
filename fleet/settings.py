"""`kvpilot.yaml`: everything a user may set, validated, with the defaults and their reasons.

Pydantic lives here because users' input enters here; `fleet.settings_file` reads the file and words the
mistakes. Every number has a smallest and a largest value: what lies outside would only stop a server later.
`Settings.fleet` gives the frozen topology that the rest of the code works on.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fleet import checks
from fleet.address import join, split
from fleet.gpu import prior_rate
from fleet.model import Endpoint, Fleet, Hardware, Model, Rate, Version

Steering = Literal["round_robin", "weighted", "steered"]
"""Who chooses the endpoint: Envoy with equal weights, Envoy with computed ones, or the picker."""

Engine = Literal["triton", "trtllm-serve"]

TRITON_METRICS_PORT = 8002
"""Where Triton serves metrics unless told otherwise."""

NEWS_TO_SILENCE = 4
"""Intervals of Envoy's log that a request must be missing from before it may count as over."""

HostPort = Annotated[str, AfterValidator(checks.host_port)]
IpPort = Annotated[str, AfterValidator(checks.ip_port)]
ServerAddress = Annotated[str, AfterValidator(checks.server_address)]
Name = Annotated[str, AfterValidator(checks.name)]
Gpu = Annotated[str, AfterValidator(checks.gpu)]
HeaderName = Annotated[str, AfterValidator(checks.header_name)]
HeaderNameOrNone = Annotated[str, AfterValidator(checks.header_name_or_none)]
CookieName = Annotated[str, AfterValidator(checks.cookie_name)]
Zone = Annotated[str, AfterValidator(checks.zone)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""From the millisecond that Envoy counts in to a day."""
SecondsOrNever = Annotated[float, Field(ge=0, le=86_400), AfterValidator(checks.seconds_or_never)]


class _Section(BaseModel):
    """A part of the file: unknown fields are mistakes, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EmulatedSettings(_Section):
    """Serve this pool by emulated engines on this machine instead of real endpoints."""

    count: int = Field(1, ge=1, le=64, description="emulated endpoints; as many as `endpoints`, if set")
    speed: float = Field(1.0, ge=0.001, le=1_000_000, description="multiplies the catalogue's rates")
    kv_tokens: int | None = Field(
        None, ge=1024, le=10**9, description="KV capacity in tokens; default from GPU memory"
    )
    max_requests: int = Field(256, ge=1, le=65_536, description="batch slots")


class PoolSettings(_Section):
    """Endpoints of one version with the same hardware, sharding and engine."""

    name: Name = Field(description=checks.NAME)
    gpu: Gpu = Field(description=checks.GPU)
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that one copy is sharded over")
    zone: Zone = Field("", description="where its endpoints run, as in us-east-1a; '' where that is all one")
    engine: Engine = Field("triton", description="what serves: decides where and how metrics are read")
    endpoints: tuple[IpPort, ...] = Field((), description="where requests go, ip:port each")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="default: 8002 triton, else the same")
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


class VersionSettings(_Section):
    """One arm of the rollout."""

    name: Name = Field(description=checks.NAME)
    weight: int = Field(100, ge=0, le=10_000, description="share of the model's requests")
    pools: tuple[PoolSettings, ...] = Field(min_length=1, description="a list of at least one pool")


class ModelSettings(_Section):
    """A model that clients name."""

    name: Name = Field(description=checks.NAME)
    parameters_billion: float = Field(
        70, ge=0.001, le=100_000, description="size of the model; scales the prior rates only"
    )
    versions: tuple[VersionSettings, ...] = Field(min_length=1, description="a list of at least one version")

    @model_validator(mode="after")
    def _has_traffic(self) -> ModelSettings:
        if not any(version.weight for version in self.versions):
            raise checks.mistake("versions", None, "at least one with a weight above 0")
        return self


class PickerSettings(_Section):
    """How the picker decides."""

    block_bytes: int = Field(256, ge=64, le=4096, description="prompt bytes hashed as one block, ~64 tokens")
    bytes_per_token: float = Field(
        4.0, ge=0.1, le=100, description="to turn bytes into tokens without a tokenizer"
    )
    max_hashed_bytes: int = Field(
        8 << 20,
        ge=1024,
        le=1 << 30,
        description="prompt bytes hashed into blocks; the rest counts as unmatched",
    )
    endpoints_per_pick: int = Field(3, ge=1, le=8, description="length of the list: picks plus retries")
    expected_output_tokens: int = Field(
        256, ge=1, le=1_000_000, description="assumed until a model has answered, at most the client's limit"
    )
    session_ttl_seconds: Seconds = Field(1800, description="a session idle for longer is forgotten")
    sessions_max: int = Field(
        100_000, ge=1, le=10_000_000, description="sessions remembered, the oldest dropped first"
    )
    default_kv_tokens: int = Field(
        400_000, ge=1024, le=10**9, description="assumed KV capacity until the engine says"
    )
    silence_seconds: Seconds = Field(
        15,
        description="a request that no log entry speaks of for this long is over; Envoy reports every running"
        " one each envoy.log_interval_seconds",
    )
    hold_seconds: float = Field(
        120,
        ge=0,
        le=600,
        description="longest that a request waits in the picker where all queues it might join are long; 0:"
        " every request is sent at once",
    )
    held_max: int = Field(1024, ge=1, le=65_536, description="requests held at once; more go at once")
    key_file: Path | None = Field(None, description="secret that seeds the hashes; shared by all replicas")
    session_headers: tuple[HeaderName, ...] = Field(
        ("x-session-id", "x-conversation-id", "x-correlation-id", "mcp-session-id"),
        description="request headers that name a session, in lower case; the first one found wins",
    )
    session_cookie: CookieName = Field(
        "kvpilot_session", description="cookie that names a session; '' for none"
    )
    class_header: HeaderNameOrNone = Field(
        "",
        description="request header, set by the gateway and never by clients, that says `batch`; all else is"
        " interactive; '' for none",
    )
    zone: Zone = Field("", description="where the Envoys run that ask this picker; '' for none")

    @property
    def tokens_per_block(self) -> float:
        """Prompt tokens that one hashed block stands for."""
        return self.block_bytes / self.bytes_per_token


class WeightSettings(_Section):
    """How endpoint weights follow the fleet's state."""

    interval_seconds: Seconds = Field(1.0, description="at most one push of weights in this time")
    smoothing: float = Field(0.3, ge=0.001, le=1, description="share of a new value taken over per interval")
    hysteresis: float = Field(0.1, ge=0, le=0.99, description="relative change below which nothing is pushed")


class CollectSettings(_Section):
    """How endpoints are scraped."""

    interval_seconds: Seconds = Field(1.0, description="one scrape of each endpoint in this time")
    timeout_seconds: Seconds = Field(0.8, description="a scrape that takes longer has failed")
    failures_to_eject: int = Field(
        3, ge=1, le=1000, description="failed scrapes in a row before an endpoint is ejected"
    )
    stale_after_seconds: Seconds = Field(10.0, description="older state counts as unknown")


class EnvoySettings(_Section):
    """What the generated Envoy configuration holds to."""

    message_timeout_seconds: float = Field(
        0.25,
        ge=0.001,
        le=3600,
        description="longest wait for the picker, then weights; Envoy takes an hour at most",
    )
    buffer_bytes: int = Field(
        8 << 20, ge=1 << 16, le=1 << 30, description="request bytes kept for retries and the picker"
    )
    log_interval_seconds: float = Field(0.5, ge=0.01, le=1.0, description="news of first tokens mid-stream")
    retries: int = Field(2, ge=0, le=7, description="further endpoints tried before an answer has begun")
    connect_timeout_seconds: Seconds = 0.5
    debug_headers: bool = Field(False, description="tell clients which endpoint and version answered")
    stream_idle_timeout_seconds: SecondsOrNever = Field(
        300, description="a silent answer is cut after this; 0 never"
    )


class Settings(_Section):
    """The whole file."""

    listen: IpPort = "127.0.0.1:8080"
    steering: Steering = "steered"
    models: tuple[ModelSettings, ...] = Field(min_length=1, description="a list of at least one model")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="`kvpilot up` sets its own")
    xds_address: ServerAddress = "127.0.0.1:18000"
    picker_address: ServerAddress = "127.0.0.1:18001"
    xds_metrics: HostPort | None = Field(None, description="serve the xDS server's Prometheus metrics here")
    picker_metrics: HostPort | None = Field(None, description="serve the picker's Prometheus metrics here")
    picker: PickerSettings = PickerSettings()
    weights: WeightSettings = WeightSettings()
    collect: CollectSettings = CollectSettings()
    envoy: EnvoySettings = EnvoySettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> Settings:
        _check_names(self)
        _check_addresses(self)
        shortest = NEWS_TO_SILENCE * self.envoy.log_interval_seconds
        if self.picker.silence_seconds < shortest:
            need = f"at least {shortest:g}, {NEWS_TO_SILENCE} x envoy.log_interval_seconds"
            raise checks.mistake("picker.silence_seconds", self.picker.silence_seconds, need)
        return self

    def pools(self) -> list[tuple[ModelSettings, VersionSettings, PoolSettings]]:
        """Every pool with the model and version it belongs to."""
        return [(m, v, p) for m in self.models for v in m.versions for p in v.pools]

    def fleet(self) -> Fleet:
        """The topology as frozen dataclasses."""
        return Fleet(
            tuple(Model(m.name, tuple(_version(m, version) for version in m.versions)) for m in self.models)
        )


def _version(model: ModelSettings, version: VersionSettings) -> Version:
    endpoints = tuple(
        Endpoint(
            address=address,
            model=model.name,
            version=version.name,
            pool=pool.name,
            hardware=pool.hardware,
            engine=pool.engine,
            metrics_url=pool.metrics_url(address),
            prior=pool.prior(model.parameters_billion),
            zone=pool.zone,
        )
        for pool in version.pools
        for address in pool.endpoints
    )
    return Version(version.name, version.weight, endpoints)


def pool_field(model: ModelSettings, version: VersionSettings, pool: PoolSettings, field: str) -> str:
    """The path of a pool's field, as errors name it."""
    return f"models.{model.name}.versions.{version.name}.pools.{pool.name}.{field}"


def _check_names(settings: Settings) -> None:
    checks.distinct_names("models", [model.name for model in settings.models])
    for model in settings.models:
        within = f"models.{model.name}.versions"
        checks.distinct_names(within, [version.name for version in model.versions])
        for version in model.versions:
            checks.distinct_names(f"{within}.{version.name}.pools", [pool.name for pool in version.pools])


def _check_addresses(settings: Settings) -> None:
    """Two servers cannot listen on one address, and an address says which endpoint a record is of."""
    fields = ("listen", "xds_address", "picker_address", "xds_metrics", "picker_metrics")
    places = [(field, getattr(settings, field)) for field in fields if getattr(settings, field) is not None]
    for model, version, pool in settings.pools():
        named = {f"endpoints.{n}": address for n, address in enumerate(pool.endpoints)}
        places += [(pool_field(model, version, pool, field), named[field]) for field in named]
    checks.distinct_addresses(places)
