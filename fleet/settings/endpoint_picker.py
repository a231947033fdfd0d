"""kvpilot as the endpoint picker of a Gateway API InferencePool."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.settings.section import HostPort, Section, ServerAddress


class EndpointPickerSettings(Section):
    """What holds for gateways that ask us for endpoints."""

    mode: Literal["auto", "always"] = Field(
        "auto",
        description="auto: who announces FULL_DUPLEX_STREAMED is a gateway; always: everybody is, for"
        " gateways that announce nothing",
    )
    pool_addresses: dict[HostPort, str] = Field(
        {},
        max_length=1000,
        description="further addresses to listen on, one per pool, each with its cluster as in model/version",
    )
    pool_authorities: dict[str, str] = Field(
        {},
        max_length=1000,
        description="clusters by the gRPC :authority that gateways ask for, as in pool-a.llm.svc; for"
        " transports that show it",
    )
    health_address: ServerAddress | None = Field(None, description="answer gRPC health checks here, too")
    test_headers: bool = Field(
        False, description="obey the conformance tests' request header, and tell clients who serves"
    )
