"""The benchmark of routing policies as Markdown: a section per experiment, with what was to be reached."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import routing_events as events
import routing_ratios as ratios
from routing_plan import BURST, CASES, LAGS_MS, OURS, PEERS, REPLICAS, SLOWDOWN
from routing_ratios import E2E_MEAN, E2E_P99, MEAN, P99

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from routing_plan import Run
    from routing_ratios import Row, Total
    from routing_runs import Figures

_NAMES = {MEAN: "TTFT mean", P99: "TTFT p99", E2E_P99: "e2e p99", E2E_MEAN: "e2e mean"}
_HEADINGS = (
    "workload",
    "speedup",
    "busy",
    *_NAMES.values(),
    "best peer",
    "our TTFT mean",
    "hits",
    "to oracle",
    "learned / true",
)
_ANSWERS = ("TTFT mean", "last answer")
_FAILED = "**failed**"  # requests were rejected


def sections(runs: Mapping[Run, Figures]) -> dict[str, str]:
    """Markdown by experiment, of those that have run."""
    rows = ratios.rows(runs)
    found = {
        CASES: _cases(rows),
        SLOWDOWN: _slowdowns(events.slowdowns(runs)),
        BURST: _bursts(events.bursts(runs)),
        REPLICAS: _replicas(events.replicas(runs)),
    }
    return {experiment: text for experiment, text in found.items() if text}


def put(document: str, experiment: str, text: str) -> str | None:
    """The document with its section of an experiment replaced; None where it has no such section."""
    begin, end = f"<!-- {experiment} -->", f"<!-- end of {experiment} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(document):
        return None
    return pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", document, count=1)


def _cases(rows: Sequence[Row]) -> str:
    return "\n\n".join(_fleet(total, rows) for total in ratios.totals(rows))


def _fleet(total: Total, rows: Sequence[Row]) -> str:
    mine = [row for row in rows if (row.case.engine, row.case.fleet) == (total.engine, total.fleet)]
    parts = [
        f"### {total.fleet}, {total.engine} engine",
        f"{total.cases} cases, {_seeds(mine)}. Ratios below 1 are ours winning.",
        _table(_HEADINGS, map(_cells, mine)),
        _table(("over all cases", "ratio", "target", ""), _against_targets(total)),
        _losses(total),
    ]
    if rejected := sum(row.rejected for row in mine):
        parts.append(f"**Failed** in {total.failed} cases: ours rejected {rejected:g} requests.")
    if (peers := min(row.peers for row in mine)) < len(PEERS):
        parts.append(f"**Not all have run:** only {peers} of {len(PEERS)} peers in some case.")
    return "\n\n".join(parts)


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({row.seeds for row in rows})
    most = f" to {counts[-1]}" if len(counts) > 1 else ""
    return f"seeds of each: {counts[0]}{most}"


def _cells(row: Row) -> list[str]:
    return [
        row.case.workload,
        f"{row.case.speedup:g}",
        _share(row.busy_arriving),
        *(_FAILED if row.rejected else _ratio(row.ratios[metric]) for metric in _NAMES),
        row.best_peer or "-",
        _seconds(row.ttft_mean_s),
        _share(row.token_hit_ratio),
        _ratio(row.to_oracle),
        _ratio(row.to_true_rates),
    ]


def _against_targets(total: Total) -> list[list[str]]:
    target = ratios.TARGETS.get(total.fleet)
    limits = dict(target.ratios) if target else {}
    learned = "learned / true rates, TTFT mean after 500 requests"
    worst_case, worst = total.worst_to_true_rates or (None, None)
    named = f" ({_load(worst_case)})" if worst_case else ""
    judged = [
        *((name, total.ratios[metric], limits.get(metric)) for metric, name in _NAMES.items()),
        ("worst case in TTFT mean", total.worst_mean, target.worst_mean if target else None),
        (learned, total.to_true_rates, ratios.LEARNED_COST),
        (f"the same, worst case{named}", worst, None),
        ("to the oracle, TTFT mean", total.to_oracle, None),
    ]
    return [_judged(name, value, limit, total.failed) for name, value, limit in judged]


def _losses(total: Total) -> str:
    policies = ", ".join(ratios.NEVER_LOSES_TO)
    if not total.losses:
        return f"No case is lost to {policies} by more than 2 % in TTFT mean or p99."
    listed = [
        f"- {_load(case)}: {ratio:.3f} of {policy}'s {_NAMES[metric]}"
        for case, policy, metric, ratio in total.losses
    ]
    return "\n".join([f"Lost by more than 2 % to one of {policies}:", "", *listed])


def _slowdowns(found: Sequence[events.Slowed]) -> str:
    headings = (
        "engine",
        "fleet",
        "workload",
        "seeds",
        "before",
        "after",
        "mean / told",
        "",
        "p90 / told",
        "",
    )
    lines = [
        [
            item.case.engine,
            item.case.fleet,
            _load(item.case) + _told(item.rejected),
            str(item.seeds),
            _seconds(item.before_ttft_mean_s),
            _seconds(item.ttft_mean_s),
            _ratio(item.mean),
            _verdict(item.mean, events.TOLD_COST, item.rejected),
            _ratio(item.p90),
            _verdict(item.p90, events.TOLD_COST, item.rejected),
        ]
        for item in found
    ]
    return _table(headings, lines) if lines else ""


def _bursts(found: Sequence[events.Burst]) -> str:
    headings = ("engine", "fleet", "policy", "seeds", "most / fair", "", "prefilled on", *_ANSWERS)
    lines = [
        [
            item.case.engine,
            item.case.fleet,
            item.policy + _told(item.rejected),
            str(item.seeds),
            f"{item.most_over_fair:.2f}",
            _verdict(item.most_over_fair, events.FAIR, item.rejected),
            f"{item.prefilled_on:g}",
            _seconds(item.ttft_mean_s),
            _seconds(item.last_token_s),
        ]
        for item in found
    ]
    return _table(headings, lines) if lines else ""


def _replicas(found: Sequence[events.Replicated]) -> str:
    headings = ("engine", "fleet", "policy", "seeds", "TTFT mean / one replica's", "", "p99 / one replica's")
    lines = [
        [
            item.engine,
            item.fleet,
            item.policy + _told(item.rejected),
            str(item.seeds),
            _ratio(item.mean),
            _of_replicas(item),
            _ratio(item.p99),
        ]
        for item in found
    ]
    return _table(headings, lines) if lines else ""


def _of_replicas(item: events.Replicated) -> str:
    """Peers are judged by nothing: at the longest lag, ours must be below all of them."""
    policy, _, lag = item.policy.rpartition("_lag")
    if policy.partition("_replicas")[0] != OURS:
        return ""
    if lag != str(LAGS_MS[-1]):
        return _verdict(item.mean, events.LAG_COST.get(lag), item.rejected)
    if item.rejected:
        return _FAILED
    nearest = item.to_best_peer
    verdict = "not measured" if nearest is None else "reached" if nearest < 1 else "**not reached**"
    return f"below every peer: {verdict}"


def _load(case: ratios.Case) -> str:
    return f"{case.workload} at {case.speedup:g}"


def _told(rejected: float) -> str:
    return f" (rejected {rejected:g})" if rejected else ""


def _judged(name: str, value: float | None, limit: float | None, failed: float) -> list[str]:
    ratio = "-" if value is None else f"{value:.3f}"
    return [name, ratio, f"≤ {limit:.2f}" if limit else "", _verdict(value, limit, failed)]


def _verdict(value: float | None, limit: float | None, failed: float) -> str:
    if limit is None:
        return ""
    if failed:
        return _FAILED
    if value is None:
        return "not measured"
    return "reached" if value <= limit else "**not reached**"


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(headings)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *lines))


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
