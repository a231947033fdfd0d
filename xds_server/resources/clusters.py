"""CDS: a cluster per version, whose members the picker chooses from, and the picker's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet import address as addresses
from fleet.names import DESTINATION_KEY, LB_NAMESPACE, PICKER_CLUSTER
from xds_server.resources.messages import (
    Any,
    ads,
    cluster,
    core,
    endpoint,
    envoy_type,
    extension,
    metadata,
    override_host,
    round_robin,
    seconds,
    server_address,
    upstreams_http,
)
from xds_server.snapshot import CLUSTER, ENDPOINT, Resource

if TYPE_CHECKING:
    from fleet.settings import Settings

LOG_CLUSTER = f"{PICKER_CLUSTER}-log"
"""The picker again, for access logs: every Envoy worker keeps one log stream open, and on a machine with
many cores those would use up the picks' `max_requests`."""

MAX_CONCURRENT_PICKS = 64
"""So many left none unpicked at 2,800 requests a second. A picker that hangs while its health check passes
delays at most this many at once, and those that it may hold."""

FROZEN_SECONDS = 1.0
"""Between HTTP/2 pings to the picker, and the longest wait for an answer: a connection to a frozen process is
then closed, and every request that is held there fails open. Picks take milliseconds."""

PANIC_PERCENT = 10
"""Below this share of healthy members Envoy tries all: GPUs are few, so one healthy pod of ten should still
be preferred to nine dead ones, while with none healthy trying beats refusing."""

NO_LIMIT = 1 << 20
"""Connections and requests to a version: engines queue by themselves, a limit here would turn a queue into
503s. Envoy's default is 1,024."""

RETRY_BUDGET_PERCENT = 50
RETRIES_ALWAYS = 128
"""Retries in flight, as a share of requests in flight and at least so many: a dying pod takes down all its
waiting requests in one moment, and Envoy's default of 3 would fail all but three of them."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def version_cluster(name: str, settings: Settings, *, grpc: bool = False) -> Resource:
    """The cluster of one version: endpoints over EDS, chosen by the picker's metadata, else by weight.

    With `grpc` they are spoken to over HTTP/2, without pings: a gRPC server hangs up on who pings often.
    """
    message = cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster.ClusterEdsClusterConfig(eds_config=ads()),
        connect_timeout=seconds(settings.envoy.connect_timeout_seconds),
        per_connection_buffer_limit_bytes=settings.envoy.buffer_bytes,
        load_balancing_policy=_picked_or_weighted(),
        common_lb_config=_panic_below(PANIC_PERCENT),
        circuit_breakers=_breakers(
            cluster.CircuitBreakersThresholds(
                max_connections=NO_LIMIT,
                max_pending_requests=NO_LIMIT,
                max_requests=NO_LIMIT,
                retry_budget=cluster.CircuitBreakersThresholdsRetryBudget(
                    budget_percent=envoy_type.Percent(value=RETRY_BUDGET_PERCENT),
                    min_retry_concurrency=RETRIES_ALWAYS,
                ),
            )
        ),
        outlier_detection=_outliers(),
        ignore_health_on_host_removal=True,
        typed_extension_protocol_options=_speaking(core.Http2ProtocolOptions()) if grpc else {},
    )
    return Resource(CLUSTER, name, bytes(message), frozenset({(ENDPOINT, name)}))


def picker_cluster(settings: Settings) -> Resource:
    """The picker's workers, set up so that a dead or frozen one delays nobody for more than a moment."""
    held = settings.picker.held_max if settings.picker.hold_seconds else 0
    most = settings.picker.workers * (MAX_CONCURRENT_PICKS + held)
    picks = cluster.CircuitBreakersThresholds(max_requests=most)
    return _grpc_cluster(PICKER_CLUSTER, settings, picks)


def log_cluster(settings: Settings) -> Resource:
    """The picker as receiver of access logs."""
    return _grpc_cluster(LOG_CLUSTER, settings, cluster.CircuitBreakersThresholds())


def _grpc_cluster(name: str, settings: Settings, limits: cluster.CircuitBreakersThresholds) -> Resource:
    address = settings.picker_address
    fixed = addresses.unix_path(address) is not None or addresses.is_ip(address)
    # A gRPC connection sticks to one process: an endpoint for each worker spreads the picks.
    workers = [addresses.of_worker(address, number) for number in range(settings.picker.workers)]
    hosts = [
        endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=server_address(worker))) for worker in workers
    ]
    message = cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.STATIC if fixed else cluster.ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=seconds(0.25),
        load_assignment=endpoint.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=hosts)]
        ),
        typed_extension_protocol_options=_speaking(
            core.Http2ProtocolOptions(
                connection_keepalive=core.KeepaliveSettings(
                    interval=seconds(FROZEN_SECONDS), timeout=seconds(FROZEN_SECONDS)
                )
            )
        ),
        health_checks=[_grpc_health_check()],
        common_lb_config=_panic_below(0),  # a picker that fails its checks gets nothing, and Envoy fails open
        circuit_breakers=_breakers(limits),
        ignore_health_on_host_removal=True,
    )
    return Resource(CLUSTER, name, bytes(message))


def _picked_or_weighted() -> cluster.LoadBalancingPolicy:
    """Metadata only: a header would let clients choose. round_robin alone honours weights exactly."""
    picked = metadata.MetadataKey(
        key=LB_NAMESPACE, path=[metadata.MetadataKeyPathSegment(key=DESTINATION_KEY)]
    )
    policy = override_host.OverrideHost(
        override_host_sources=[override_host.OverrideHostOverrideHostSource(metadata=picked)],
        fallback_policy=_policy(
            extension("envoy.load_balancing_policies.round_robin", round_robin.RoundRobin())
        ),
    )
    return _policy(extension("envoy.load_balancing_policies.override_host", policy))


def _policy(config: core.TypedExtensionConfig) -> cluster.LoadBalancingPolicy:
    return cluster.LoadBalancingPolicy(
        policies=[cluster.LoadBalancingPolicyPolicy(typed_extension_config=config)]
    )


def _panic_below(percent: float) -> cluster.ClusterCommonLbConfig:
    return cluster.ClusterCommonLbConfig(healthy_panic_threshold=envoy_type.Percent(value=percent))


def _breakers(thresholds: cluster.CircuitBreakersThresholds) -> cluster.CircuitBreakers:
    return cluster.CircuitBreakers(thresholds=[thresholds])


def _outliers() -> cluster.OutlierDetection:
    """Eject for seconds who refuses connections or answers 502-504; a model's own 500s prove nothing."""
    return cluster.OutlierDetection(
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_time=seconds(30),
        max_ejection_percent=50,
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
        consecutive_gateway_failure=5,
        enforcing_consecutive_gateway_failure=100,
    )


def _grpc_health_check() -> core.HealthCheck:
    """Found to hold a frozen picker's damage to the requests of its first 70 ms."""
    every = seconds(0.25)
    return core.HealthCheck(
        interval=every,
        no_traffic_interval=every,
        no_traffic_healthy_interval=every,
        timeout=seconds(0.1),
        healthy_threshold=1,
        unhealthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(),
    )


def _speaking(http2: core.Http2ProtocolOptions) -> dict[str, Any]:
    """A cluster's protocol options: HTTP/2, so set up."""
    explicit = upstreams_http.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)
    options = upstreams_http.HttpProtocolOptions(explicit_http_config=explicit)
    return {_HTTP_OPTIONS: Any.pack(options)}
