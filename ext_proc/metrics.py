"""The picker's Prometheus metrics, in a registry of their own so that tests can have many.

docs/metrics.md says what each means and which to be woken by. Labels are words of ours and the fleet's
endpoints: nothing that a client can make more of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from ext_proc.choice import AT_HOME, CHEAPEST, LEAST_BUSY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ext_proc.outcome import Outcome
    from ext_proc.tallies import Tallies

_TTFT_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)  # seconds: from a cache hit to a long queue

_HOLD_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)  # seconds: up to picker.hold_seconds

_OFF_BUCKETS = (0.02, 0.1, 0.5, 1, 5, 20)  # seconds off, on either side; few: each costs time

_SIGNED_BUCKETS = (*(-limit for limit in reversed(_OFF_BUCKETS)), 0, *_OFF_BUCKETS)

_RATIO_BUCKETS = (0, 0.25, 0.5, 0.75, 0.9, 1)

_WHY = {CHEAPEST: "cheapest", AT_HOME: "session", LEAST_BUSY: "least-busy"}
"""Label for each of the reasons of `ext_proc.choice`."""


class Children(dict[str, Counter]):
    """The children of a counter with one label, by its value: looking one up anew costs a microsecond."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __missing__(self, value: str) -> Counter:
        """The child, from now on at hand. Values must be few."""
        child = self[value] = self._counter.labels(value)
        return child


class PickerMetrics:
    """Counters of what became of requests and of the news about them."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "kvpilot_picker_requests",
            "Requests shown to the picker, by what became of them",
            ["outcome"],
            registry=registry,
        )
        self.requests_by_outcome = Children(self.requests)
        self._decisions = Children(
            Counter(
                "kvpilot_picker_decisions",
                "Requests that got an endpoint, by what the first has over the others",
                ["why"],
                registry=registry,
            )
        )
        self.predicted_ttft = Histogram(
            "kvpilot_picker_predicted_ttft_seconds",
            "Time to first token predicted for the endpoint picked",
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self.served = Counter(
            "kvpilot_picker_served",
            "Requests of gateways, by who served: as picked, the next of the list, other (the gateway did not"
            " obey), or unknown",
            ["by"],
            registry=self.registry,
        )
        self.held = Gauge(
            "kvpilot_picker_held", "Requests waiting here for an endpoint's queue", registry=registry
        )
        self.held_seconds = Histogram(
            "kvpilot_picker_held_seconds",
            "How long requests that had to wait here did so",
            buckets=_HOLD_BUCKETS,
            registry=registry,
        )
        self.log_entries = Counter(
            "kvpilot_picker_log_entries",
            "Access-log entries, by whether they belonged to an outstanding pick",
            ["result"],
            registry=registry,
        )
        self.shed = Counter(
            "kvpilot_picker_shed",
            "Requests answered 429, by model, why, and the lowest priority of their level",
            ["model", "reason", "level"],
            registry=registry,
        )
        self.shed_by_tenant = Counter(
            "kvpilot_picker_shed_by_tenant",
            "The same by tenant, as far as the settings name it",
            ["tenant"],
            registry=registry,
        )
        self.log_entries_by_result = Children(self.log_entries)
        self.expired = Counter(
            "kvpilot_picker_expired",
            "Requests given up because nobody reported their end",
            registry=registry,
        )
        self.in_flight = Gauge(
            "kvpilot_picker_in_flight", "Requests placed and not over yet", registry=registry
        )
        self.known_blocks = Gauge(
            "kvpilot_picker_known_blocks",
            "Distinct prefix blocks that some endpoint is believed to hold",
            registry=registry,
        )
        self._ends = _Ends(registry)

    def decided(self, why: str, predicted_ttft: float) -> None:
        """Envoy was told where to go, for the reason `why`."""
        self._decisions[_WHY.get(why, "other")].inc()
        self.predicted_ttft.observe(predicted_ttft)

    def over(self, outcome: Outcome) -> None:
        """A request that was decided here is over."""
        self._ends.count(outcome)

    def show(self, tallies: Tallies) -> None:
        """Show what is counted there, whenever the metrics are read."""
        self.registry.register(_Shown(tallies))


class _Ends:
    """What became of picks, beside what was predicted of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._picks = Counter(
            "kvpilot_picker_picks", "Picks whose end the access log told", registry=registry
        )
        self._fallbacks = Counter(
            "kvpilot_picker_fallbacks",
            "Picks that Envoy did not obey: served by another endpoint in a first attempt",
            registry=registry,
        )
        self._retries = Counter(
            "kvpilot_picker_retries", "Further attempts that picks took", registry=registry
        )
        self._failures = Counter(
            "kvpilot_picker_failures", "Picks that ended with the endpoint's failure", registry=registry
        )
        self._ttft = Histogram(
            "kvpilot_picker_ttft_seconds",
            "Time from the decision to the first token, of streamed answers in a first attempt",
            buckets=_TTFT_BUCKETS,
            registry=registry,
        )
        self._error = Histogram(
            "kvpilot_picker_ttft_error_seconds",
            "First token later (or, below 0, earlier) than predicted, as in ttft_seconds",
            buckets=_SIGNED_BUCKETS,
            registry=registry,
        )
        self._absolute = Histogram(
            "kvpilot_picker_ttft_absolute_error_seconds",
            "The same without its sign",
            buckets=_OFF_BUCKETS,
            registry=registry,
        )
        self._predicted_match, self._actual_match = (
            Histogram(
                f"kvpilot_picker_{kind}_match_ratio",
                f"Share of the prompt {what}, of answers whose engine tells its cached tokens",
                buckets=_RATIO_BUCKETS,
                registry=registry,
            )
            for kind, what in (("predicted", "counted on as cached"), ("actual", "found in the cache"))
        )

    def count(self, outcome: Outcome) -> None:
        """One more."""
        self._picks.inc()
        if outcome.fallback:
            self._fallbacks.inc()
        if outcome.attempts > 1:
            self._retries.inc(outcome.attempts - 1)
        if outcome.failed:
            self._failures.inc()
        if not outcome.answered or outcome.failed:
            return
        if outcome.ttft is not None:
            error = outcome.ttft - outcome.predicted_ttft
            self._ttft.observe(outcome.ttft)
            self._error.observe(error)
            self._absolute.observe(abs(error))
        if outcome.cached_tokens is not None and outcome.prompt_tokens > 0:
            self._predicted_match.observe(outcome.matched_tokens / outcome.prompt_tokens)
            self._actual_match.observe(outcome.cached_tokens / outcome.prompt_tokens)


class _Shown(Collector):
    """Counters that live in `Tallies`: an increment there costs a tenth of one here."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The counters as they are now."""
        yield _family(
            "kvpilot_picker_protocol_requests",
            "Requests read, by protocol and what became of them at once",
            "outcome",
            self._tallies.by_protocol,
        )
        yield _family(
            "kvpilot_picker_parse_failures",
            "Requests that could not be read, by protocol and reason",
            "reason",
            self._tallies.unreadable,
        )
        yield CounterMetricFamily(
            "kvpilot_picker_not_retriable",
            "Requests longer than what Envoy keeps for a retry",
            value=self._tallies.not_retriable,
        )


def _family(
    name: str, documentation: str, label: str, counts: Mapping[tuple[str, str], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=["protocol", label])
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    return family
