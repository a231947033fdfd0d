"""How weights follow the fleet, how endpoints are scraped, and what the generated Envoy holds to."""

from __future__ import annotations

from pydantic import Field

from fleet.settings.section import Seconds, SecondsOrNever, Section


class WeightSettings(Section):
    """How endpoint weights follow the fleet's state."""

    interval_seconds: Seconds = Field(1.0, description="at most one push of weights in this time")
    smoothing: float = Field(0.3, ge=0.001, le=1, description="share of a new value taken over per interval")
    hysteresis: float = Field(0.1, ge=0, le=0.99, description="relative change below which nothing is pushed")


class CollectSettings(Section):
    """How endpoints are scraped."""

    interval_seconds: Seconds = Field(1.0, description="one scrape of each endpoint in this time")
    timeout_seconds: Seconds = Field(0.8, description="a scrape that takes longer has failed")
    failures_to_eject: int = Field(
        3, ge=1, le=1000, description="failed scrapes in a row before an endpoint is ejected"
    )
    stale_after_seconds: Seconds = Field(10.0, description="older state counts as unknown")


class EnvoySettings(Section):
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
    grpc_stream_idle_timeout_seconds: SecondsOrNever = Field(
        3600, description="a ModelStreamInfer stream on which nobody speaks is cut after this; 0 never"
    )
