"""What a picker's metrics say at the end of a case."""

from __future__ import annotations

import re

from ext_proc.stream import EARLY

_REQUESTS = re.compile(r'^kvpilot_picker_requests_total\{outcome="([^"]*)"\} (\S+)', re.MULTILINE)
_IN_FLIGHT = re.compile(r"^kvpilot_picker_endpoint_in_flight\{.*\} (\S+)", re.MULTILINE)
"""As it is now; the sum of all endpoints is renewed each second only."""

_STEERED = ("steered", EARLY)  # not "steered-unread": placed without a look at the prompt


def counted(metrics: str) -> dict[str, float]:
    """From the text of `/metrics`, as figures of the result.

    `steered_share`: of all requests shown, those steered by their prompt. `fallbacks`: picks that Envoy did
    not obey. `told_by_log`: ends that the access log told, and no exchange. `in_flight`: requests whose end
    the picker does not know; it should, but for what the log has yet to tell.
    """
    requests = {found[1]: float(found[2]) for found in _REQUESTS.finditer(metrics)}
    steered = sum(requests.get(outcome, 0.0) for outcome in _STEERED)
    return {
        "known_blocks": _value(metrics, "known_blocks"),
        "steered_share": steered / max(1.0, sum(requests.values())),
        "fallbacks": _value(metrics, "fallbacks_total"),
        "told_by_log": _value(metrics, 'log_entries_total{result="applied"}'),
        "in_flight": sum(float(count) for count in _IN_FLIGHT.findall(metrics)),
    }


def _value(metrics: str, name: str) -> float:
    """Of one metric; 0 where nothing was counted yet."""
    found = re.search(rf"^kvpilot_picker_{re.escape(name)} (\S+)", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0
