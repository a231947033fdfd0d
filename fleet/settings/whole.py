"""The whole file, and that its parts agree."""

from __future__ import annotations

from itertools import zip_longest

from pydantic import Field, model_validator

from fleet import address as addresses
from fleet import checks
from fleet.model import Endpoint, Fleet, Model, Version, cluster_name
from fleet.settings.admission import AdmissionSettings, TenantsSettings, TrustSettings
from fleet.settings.endpoint_picker import EndpointPickerSettings
from fleet.settings.models import ModelSettings, PoolSettings, VersionSettings
from fleet.settings.picker import PickerSettings
from fleet.settings.section import HostPort, IpPort, Section, ServerAddress, Steering
from fleet.settings.servers import CollectSettings, EnvoySettings, WeightSettings

NEWS_TO_SILENCE = 4
"""Intervals of Envoy's log that a request must be missing from before it may count as over."""


PORT_MAX = 65535


class Settings(Section):
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
    endpoint_picker: EndpointPickerSettings = EndpointPickerSettings()
    trust: TrustSettings = TrustSettings()
    admission: AdmissionSettings = AdmissionSettings()
    tenants: TenantsSettings = TenantsSettings()
    weights: WeightSettings = WeightSettings()
    collect: CollectSettings = CollectSettings()
    envoy: EnvoySettings = EnvoySettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> Settings:
        _check_names(self)
        _check_addresses(self)
        _check_pools(self)
        shortest = NEWS_TO_SILENCE * self.envoy.log_interval_seconds
        if self.picker.silence_seconds < shortest:
            need = f"at least {shortest:g}, {NEWS_TO_SILENCE} x envoy.log_interval_seconds"
            raise checks.mistake("picker.silence_seconds", self.picker.silence_seconds, need)
        return self

    def pools(self) -> list[tuple[ModelSettings, VersionSettings, PoolSettings]]:
        """Every pool with the model and version it belongs to."""
        return [(m, v, p) for m in self.models for v in m.versions for p in v.pools]

    def admissions(self) -> dict[str, AdmissionSettings]:
        """What holds for each model, by its name."""
        return {model.name: self.admission.with_own(model.admission) for model in self.models}

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
            grpc_address=grpc_address,
        )
        for pool in version.pools
        for address, grpc_address in zip_longest(pool.endpoints, pool.grpc_addresses, fillvalue="")
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


def _of_worker(settings: Settings, field: str, number: int) -> str:
    found = addresses.of_worker(getattr(settings, field), number)
    if addresses.unix_path(found) is None and addresses.split(found)[1] > PORT_MAX:
        raise checks.mistake(field, getattr(settings, field), f"room for {settings.picker.workers} ports")
    return found


def _check_addresses(settings: Settings) -> None:
    """Two servers cannot listen on one address, and an address says which endpoint a record is of."""
    fields = ("listen", "xds_address", "picker_address", "xds_metrics", "picker_metrics")
    workers = [
        field for field in ("picker_address", "picker_metrics") if getattr(settings, field) is not None
    ]
    places = [(field, getattr(settings, field)) for field in fields if getattr(settings, field) is not None]
    gateways = settings.endpoint_picker
    places += [(f"endpoint_picker.pool_addresses.{address}", address) for address in gateways.pool_addresses]
    if gateways.health_address is not None:
        places.append(("endpoint_picker.health_address", gateways.health_address))
    for number in range(1, settings.picker.workers):
        places += [(f"{field} of worker {number}", _of_worker(settings, field, number)) for field in workers]
    for model, version, pool in settings.pools():
        named = {f"endpoints.{n}": address for n, address in enumerate(pool.endpoints)}
        named |= {f"{_grpc_field(pool)}.{n}": address for n, address in enumerate(pool.grpc_addresses)}
        places += [(pool_field(model, version, pool, field), named[field]) for field in named]
    checks.distinct_addresses(places)


def _check_pools(settings: Settings) -> None:
    """What gateways ask for by an address is there."""
    clusters = {cluster_name(model.name, version.name) for model, version, _ in settings.pools()}
    authorities = settings.endpoint_picker.pool_authorities
    if authorities and settings.picker.transport == "grpc":
        need = "none with picker.transport grpc: gRPC's own server shows no authority, http2 does"
        raise checks.mistake("endpoint_picker.pool_authorities", len(authorities), need)
    for field in ("pool_addresses", "pool_authorities"):
        for name, cluster in getattr(settings.endpoint_picker, field).items():
            if cluster not in clusters:
                need = f"one of {', '.join(sorted(clusters))}"
                raise checks.mistake(f"endpoint_picker.{field}.{name}", cluster, need)


def _grpc_field(pool: PoolSettings) -> str:
    return "grpc_endpoints" if pool.grpc_endpoints else "grpc_port"
