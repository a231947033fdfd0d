"""`kvpilot.yaml`: everything a user may set, validated, with the defaults and their reasons.

Pydantic lives here because users' input enters here. `load` turns any mistake into one ConfigError that
names the file, the field, what was found and what would be right; `Settings.fleet` gives the frozen
topology that the rest of the code works on.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleet.address import join, split
from fleet.errors import ConfigError
from fleet.gpu import CATALOGUE, prior_rate
from fleet.model import Endpoint, Fleet, Hardware, Model, Version

Steering = Literal["round_robin", "weighted", "steered"]
"""Who chooses the endpoint: Envoy with equal weights, Envoy with computed ones, or the picker."""

Engine = Literal["triton", "trtllm-serve"]

TRITON_METRICS_PORT = 8002
"""Where Triton serves metrics unless told otherwise."""

_HOST_PORT = re.compile(r"^(?P<host>\[[0-9a-fA-F:]+\]|[^:\[\]\s/]+):(?P<port>\d{1,5})$")


def _check_host_port(value: str) -> str:
    match = _HOST_PORT.match(value)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError("expected host:port with a port from 1 to 65535, as in 10.0.0.7:8000")
    return value


def _check_server_address(value: str) -> str:
    if value.startswith("unix:/"):
        return value
    try:
        return _check_host_port(value)
    except ValueError as error:
        raise ValueError(f"{error}, or unix:/path") from error


def _check_gpu(value: str) -> str:
    if value not in CATALOGUE:
        raise ValueError(f"expected one of {', '.join(sorted(CATALOGUE))}")
    return value


def _check_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", value):
        raise ValueError("expected a name of letters, digits and . _ : - that starts with a letter or digit")
    return value


HostPort = Annotated[str, AfterValidator(_check_host_port)]
ServerAddress = Annotated[str, AfterValidator(_check_server_address)]
Name = Annotated[str, AfterValidator(_check_name)]


class _Section(BaseModel):
    """A part of the file: unknown fields are mistakes, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EmulatedSettings(_Section):
    """Serve this pool by emulated engines on this machine instead of real endpoints."""

    count: int = Field(1, ge=1, le=64, description="emulated endpoints in the pool")
    speed: float = Field(1.0, gt=0, description="multiplies the catalogue's rates; above 1 for fast tests")
    kv_tokens: int | None = Field(None, gt=0, description="KV capacity in tokens; default from GPU memory")
    max_requests: int = Field(256, ge=1, description="batch slots")


class PoolSettings(_Section):
    """Endpoints of one version with the same hardware, sharding and engine."""

    name: Name
    gpu: Annotated[str, AfterValidator(_check_gpu)] = Field(description="a GPU of the catalogue")
    tensor_parallel: int = Field(1, ge=1, le=64, description="GPUs that one copy is sharded over")
    engine: Engine = Field("triton", description="what serves: decides where and how metrics are read")
    endpoints: tuple[HostPort, ...] = Field((), description="where requests go, ip:port each")
    metrics_port: int | None = Field(None, ge=1, le=65535, description="default: 8002 triton, else the same")
    emulated: EmulatedSettings | None = None

    @model_validator(mode="after")
    def _has_endpoints(self) -> PoolSettings:
        if not self.endpoints and self.emulated is None:
            raise ValueError("expected `endpoints` with at least one ip:port, or `emulated`")
        if self.emulated is not None and self.engine != "triton":
            raise ValueError("expected engine triton with `emulated`: its metrics are Triton's")
        if self.emulated is not None and self.metrics_port is not None:
            raise ValueError("expected no `metrics_port` with `emulated`: one port serves all")
        return self

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

    name: Name
    weight: int = Field(100, ge=0, le=10_000, description="share of the model's requests")
    pools: tuple[PoolSettings, ...] = Field(min_length=1)


class ModelSettings(_Section):
    """A model that clients name."""

    name: Name
    parameters_billion: float = Field(70, gt=0, description="size of the model; scales the prior rates only")
    versions: tuple[VersionSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_traffic(self) -> ModelSettings:
        if not any(version.weight for version in self.versions):
            raise ValueError("expected at least one version with a weight above 0")
        return self


class PickerSettings(_Section):
    """How the picker decides."""

    block_bytes: int = Field(256, ge=64, le=4096, description="prompt bytes hashed as one block, ~64 tokens")
    bytes_per_token: float = Field(4.0, gt=0, description="to turn bytes into tokens without a tokenizer")
    max_body_bytes: int = Field(1 << 20, ge=1024, description="parsed and hashed at most; the rest is unread")
    endpoints_per_pick: int = Field(
        3, ge=1, le=8, description="length of the ordered list: picks plus retries"
    )
    expected_output_tokens: int = Field(256, ge=1, description="assumed where the client sets no limit")
    session_ttl_seconds: float = Field(1800, gt=0, description="a session idle for longer is forgotten")
    sessions_max: int = Field(100_000, ge=1, description="sessions remembered, the oldest dropped first")
    default_kv_tokens: int = Field(400_000, gt=0, description="assumed KV capacity until the engine says")
    request_timeout_seconds: float = Field(900, gt=0, description="a request silent for longer is given up")
    key_file: Path | None = Field(None, description="secret that seeds the hashes; shared by all replicas")
    session_headers: tuple[str, ...] = Field(
        ("x-session-id", "x-conversation-id", "x-correlation-id", "mcp-session-id"),
        description="request headers that name a session; the first one found wins",
    )
    session_cookie: str = Field("kvpilot_session", description="cookie that names a session")

    @property
    def tokens_per_block(self) -> float:
        """Prompt tokens that one hashed block stands for."""
        return self.block_bytes / self.bytes_per_token


class WeightSettings(_Section):
    """How endpoint weights follow the fleet's state."""

    interval_seconds: float = Field(1.0, gt=0, description="at most one push of weights in this time")
    smoothing: float = Field(0.3, gt=0, le=1, description="share of a new value taken over per interval")
    hysteresis: float = Field(0.1, ge=0, lt=1, description="relative change below which nothing is pushed")


class CollectSettings(_Section):
    """How endpoints are scraped."""

    interval_seconds: float = Field(1.0, gt=0, description="one scrape of each endpoint in this time")
    timeout_seconds: float = Field(0.8, gt=0, description="a scrape that takes longer has failed")
    failures_to_eject: int = Field(
        3, ge=1, description="failed scrapes in a row before an endpoint is ejected"
    )
    stale_after_seconds: float = Field(10.0, gt=0, description="older state counts as unknown")


class EnvoySettings(_Section):
    """What the generated Envoy configuration holds to."""

    message_timeout_seconds: float = Field(
        0.25, gt=0, description="longest wait for the picker, then weights"
    )
    buffer_bytes: int = Field(
        8 << 20, ge=1 << 16, description="request bytes kept for retries and the picker"
    )
    log_interval_seconds: float = Field(0.5, ge=0.01, le=1.0, description="news of first tokens mid-stream")
    retries: int = Field(2, ge=0, le=7, description="further endpoints tried before an answer has begun")
    connect_timeout_seconds: float = Field(0.5, gt=0)
    debug_headers: bool = Field(False, description="tell clients which endpoint and version answered")
    stream_idle_timeout_seconds: float = Field(
        300, ge=0, description="a silent answer is cut after this; 0 never"
    )


class Settings(_Section):
    """The whole file."""

    listen: HostPort = "127.0.0.1:8080"
    steering: Steering = "steered"
    models: tuple[ModelSettings, ...] = Field(min_length=1)
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
        _once("model", [m.name for m in self.models])
        for model in self.models:
            _once(f"version of {model.name}", [v.name for v in model.versions])
            for version in model.versions:
                _once(f"pool of {model.name}/{version.name}", [p.name for p in version.pools])
        _once("endpoint address", [a for _, _, pool in self.pools() for a in pool.endpoints])
        return self

    def pools(self) -> list[tuple[ModelSettings, VersionSettings, PoolSettings]]:
        """Every pool with the model and version it belongs to."""
        return [(m, v, p) for m in self.models for v in m.versions for p in v.pools]

    def fleet(self) -> Fleet:
        """The topology as frozen dataclasses."""
        return Fleet(
            tuple(
                Model(
                    name=model.name,
                    versions=tuple(_version(model, version) for version in model.versions),
                )
                for model in self.models
            )
        )


def _version(model: ModelSettings, version: VersionSettings) -> Version:
    endpoints = tuple(
        Endpoint(
            address=address,
            model=model.name,
            version=version.name,
            pool=pool.name,
            hardware=Hardware(pool.gpu, pool.tensor_parallel),
            engine=pool.engine,
            metrics_url=pool.metrics_url(address),
            prior=prior_rate(Hardware(pool.gpu, pool.tensor_parallel), model.parameters_billion * 1e9),
        )
        for pool in version.pools
        for address in pool.endpoints
    )
    return Version(version.name, version.weight, endpoints)


def _once(what: str, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"expected each {what} once, found {name!r} {times} times")


def load(path: Path) -> Settings:
    """The settings in a YAML file. Raises ConfigError naming file, field, value and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", None, f"cannot be read: {error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(str(path), "", None, f"is not YAML: {' '.join(str(error).split())}") from error
    return parse(data, source=str(path))


def parse(data: Any, source: str) -> Settings:
    """The settings in parsed YAML; `source` names it in errors. Raises ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(source, "", data, "expected a mapping with at least `models`")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        value = (
            None if first["type"] == "missing" or isinstance(first["input"], dict | list) else first["input"]
        )
        raise ConfigError(source, field, value, first["msg"].removeprefix("Value error, ")) from error


def dump(settings: Settings) -> str:
    """The settings as YAML that `load` reads back to the same."""
    return yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True), sort_keys=False)
