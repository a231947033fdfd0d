"""What every section of the file is made of: the base class, and the kinds of values with their checks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fleet import checks

Steering = Literal["round_robin", "weighted", "steered"]
"""Who chooses the endpoint: Envoy with equal weights, Envoy with computed ones, or the picker."""

Transport = Literal["grpc", "http2"]
"""What carries the picker's exchange with Envoy."""

Engine = Literal["triton", "trtllm-serve"]

HostPort = Annotated[str, AfterValidator(checks.host_port)]
IpPort = Annotated[str, AfterValidator(checks.ip_port)]
ServerAddress = Annotated[str, AfterValidator(checks.server_address)]
Name = Annotated[str, AfterValidator(checks.name)]
Gpu = Annotated[str, AfterValidator(checks.gpu)]
HeaderName = Annotated[str, AfterValidator(checks.header_name)]
BodyKey = Annotated[str, AfterValidator(checks.body_key)]
HeaderNameOrNone = Annotated[str, AfterValidator(checks.header_name_or_none)]
CookieName = Annotated[str, AfterValidator(checks.cookie_name)]
Source = Annotated[str, AfterValidator(checks.source)]
UrlOrNone = Annotated[str, AfterValidator(checks.http_url_or_none)]
Zone = Annotated[str, AfterValidator(checks.zone)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400)]
"""From the millisecond that Envoy counts in to a day."""
SecondsOrNever = Annotated[float, Field(ge=0, le=86_400), AfterValidator(checks.seconds_or_never)]


class Section(BaseModel):
    """A part of the file: unknown fields are mistakes, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
