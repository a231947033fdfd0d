"""How the picker decides."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet.settings.section import (
    BodyKey,
    CookieName,
    HeaderName,
    HeaderNameOrNone,
    Seconds,
    Section,
    Transport,
    UrlOrNone,
    Zone,
)


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
    max_parsed_bytes: int = Field(
        4 << 20,
        ge=1024,
        le=1 << 30,
        description="bytes of a body that are read, after it was unpacked; the rest counts by its length",
    )
    media_tokens: int = Field(
        512, ge=1, le=65_536, description="prompt tokens that an image or a piece of sound counts as"
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
    stuck_seconds: float = Field(
        2.0,
        ge=0.2,
        le=60,
        description="a picker whose event loop does not move for this long ends its process, so that what it"
        " holds fails open; whoever supervises it starts it again",
    )
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
    session_fast_path: bool = Field(
        False,
        description="decide a session's next turn from its headers where its endpoint is still the best:"
        " Envoy then sends no body, and what the turn adds is priced by its length",
    )
    session_body_keys: tuple[BodyKey, ...] = Field(
        (
            "session_id",
            "conversation_id",
            "conversation",
            "conversation_params.conversation_id",
            "previous_response_id",
            "prompt_cache_key",
            "metadata.session_id",
            "user",
            "metadata.user_id",
            "parameters.sequence_id",
        ),
        description="where a body names a session, a dot before each inner key; the first one found wins,"
        " after headers and the cookie",
    )
    model_header: HeaderName = Field(
        "x-model",
        description="request header or gRPC metadata that names one of `models`; else the first answers",
    )
    class_header: HeaderNameOrNone = Field(
        "",
        description="request header, set by the gateway and never by clients, that says `batch`; all else is"
        " interactive; '' for none",
    )
    tracing: UrlOrNone = Field(
        "",
        description="OTLP endpoint that gets a span for each pick of a sampled trace, as JSON; needs"
        " the extra `tracing`; '' for none",
    )
    zone: Zone = Field("", description="where the Envoys run that ask this picker; '' for none")

    transport: Transport = Field(
        "grpc",
        description="what carries the exchange with Envoy: `grpc`, gRPC's own server, or `http2`, one of ours"
        " that costs less",
    )

    @property
    def tokens_per_block(self) -> float:
        """Prompt tokens that one hashed block stands for."""
        return self.block_bytes / self.bytes_per_token
