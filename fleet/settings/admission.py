"""Overload, fairness and trust: who is turned away, who asks, and whose word counts. All off by default."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fleet import checks
from fleet.settings.section import Name, Seconds, Section, Source

PRIORITY_MAX = 1000
"""Priorities lie between this and its negative: more than anybody tells apart."""


class LevelSettings(Section):
    """Priorities from `priority` up to the next level's, and how long they may have to wait."""

    priority: int = Field(
        ge=-PRIORITY_MAX, le=PRIORITY_MAX, description="a whole number, the lowest of this level"
    )
    wait_seconds: Seconds = Field(
        10,
        description="predicted wait above which requests of this level are shed; all of them at 1.5 times it",
    )
    kv_share: float = Field(
        1.0, ge=0.01, le=1, description="share of the KV caches in use that does the same; 1 never does"
    )
    head_start_seconds: float = Field(
        0, ge=0, le=600, description="so much earlier it counts as arrived, among those that are held"
    )


class AdmissionSettings(Section):
    """When requests are turned away; a model may have its own."""

    shed: bool = Field(False, description="answer 429 to the lowest priorities while a model is overloaded")
    levels: tuple[LevelSettings, ...] = Field(
        (
            LevelSettings(priority=-PRIORITY_MAX, wait_seconds=2, kv_share=0.9),
            LevelSettings(priority=0, wait_seconds=10, kv_share=0.97, head_start_seconds=30),
            LevelSettings(priority=10, wait_seconds=60, head_start_seconds=60),
        ),
        min_length=1,
        description="a list of at least one level, the lowest priority first",
    )
    default_priority: int = Field(
        0, ge=-PRIORITY_MAX, le=PRIORITY_MAX, description="of requests for which no trusted source names one"
    )
    ttft_objective_ms: float | None = Field(
        None, ge=1, le=3_600_000, description="of requests for which no trusted source names one"
    )
    objective_unmet: Literal["serve", "shed"] = Field(
        "serve", description="where no endpoint can meet the objective: best effort, or 429 for the lowest"
    )
    objective_sheds_below: int = Field(
        0, ge=-PRIORITY_MAX, le=PRIORITY_MAX + 1, description="priorities that `objective_unmet: shed` is for"
    )

    @model_validator(mode="after")
    def _levels_ascend(self) -> AdmissionSettings:
        for n, (lower, higher) in enumerate(zip(self.levels, self.levels[1:], strict=False), start=1):
            if higher.priority <= lower.priority:
                raise checks.mistake(
                    f"levels.{n}.priority", higher.priority, f"a number above {lower.priority}, ascending"
                )
            for field in ("wait_seconds", "kv_share"):
                limit, least = getattr(higher, field), getattr(lower, field)
                if limit < least:
                    raise checks.mistake(
                        f"levels.{n}.{field}", limit, f"at least {least:g}, as the level below it"
                    )
        return self

    def with_own(self, own: AdmissionSettings | None) -> AdmissionSettings:
        """These, with the fields that a model sets itself in their place."""
        if own is None:
            return self
        return self.model_copy(update={field: getattr(own, field) for field in own.model_fields_set})


class TenantSettings(Section):
    """One tenant that is not like the others."""

    name: str = Field(min_length=1, max_length=256, description="as the trusted source names it")
    weight: float = Field(1.0, ge=0.01, le=1000, description="its fair share, relative to others'")
    budget_tokens: int | None = Field(
        None, ge=1, le=10**12, description="tokens in each window; default `budget_tokens` of all"
    )


class TenantsSettings(Section):
    """What tenants may use, and how they share what is short."""

    budget_tokens: int | None = Field(
        None, ge=1, le=10**12, description="tokens that a tenant may use in each window; none: no limit"
    )
    budget_window_seconds: float = Field(60, ge=1, le=86_400, description="length of the sliding window")
    budget_per_model: bool = Field(False, description="a budget for each model, and not one for all")
    lease_share: float = Field(
        0.05, ge=0.001, le=1, description="of a budget, that each replica may be ahead of the common account"
    )
    known: tuple[TenantSettings, ...] = Field((), description="a list of tenants with their own values")

    @model_validator(mode="after")
    def _tenants_differ(self) -> TenantsSettings:
        if self.known:
            checks.distinct_names("known", [tenant.name for tenant in self.known])
        return self

    @property
    def has_budgets(self) -> bool:
        """Whether anybody's tokens are counted."""
        return self.budget_tokens is not None or any(t.budget_tokens is not None for t in self.known)


class TrustSettings(Section):
    """Whose word counts: `header:NAME`, `claim:PATH` or `certificate`; the first that says something wins."""

    tenant: tuple[Source, ...] = Field((), description="a list of sources that name the tenant")
    priority: tuple[Source, ...] = Field((), description="a list of sources that name the priority")
    ttft_objective_ms: tuple[Source, ...] = Field((), description="a list of sources that name the objective")
    claims_namespace: Name = Field(
        "envoy.filters.http.jwt_authn", description="dynamic metadata in which claims are found"
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """All that are trusted for anything."""
        return (*self.tenant, *self.priority, *self.ttft_objective_ms)

    @property
    def reads_claims(self) -> bool:
        """Whether Envoy must forward the claims' metadata."""
        return any(source.startswith(checks.CLAIM) for source in self.sources)

    @property
    def reads_certificate(self) -> bool:
        """Whether Envoy must send the name in the client's certificate."""
        return checks.CERTIFICATE in self.sources
