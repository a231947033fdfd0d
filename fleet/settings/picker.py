"""How the picker decides."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet.settings.section import CookieName, HeaderName, HeaderNameOrNone, Seconds, Section, Zone


class PickerSettings(Section):
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
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="picker processes on this machine, each at an address of its own: one port, or `.n`,"
        " further than the one before",
    )
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
