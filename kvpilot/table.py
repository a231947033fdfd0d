"""Fleet state as rows: what each endpoint is, holds and does, for a screen or as JSON.

Pure: records and `now` in, rows out. A figure that nobody has reported is None, never 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Endpoint, Fleet, Load, Traffic, Weight


@dataclass(frozen=True, slots=True)
class Records:
    """What the store said last, by endpoint address. `away`: why it cannot be asked now, or empty."""

    load: Mapping[str, Load] = field(default_factory=dict)
    weight: Mapping[str, Weight] = field(default_factory=dict)
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    away: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint. Ratios 0..1, TTFT in seconds, ages in seconds (None: never reported)."""

    endpoint: str
    model: str
    version: str
    hardware: str
    ready: bool | None
    kv_used: float | None
    in_flight: int | None
    queued: int | None
    match_ratio: float | None
    weight: int | None
    ttft_p50: float | None
    ttft_p95: float | None
    load_age: float | None
    traffic_age: float | None
    reason: str = ""


def rows(fleet: Fleet, records: Records, now: float) -> list[Row]:
    """A row for every endpoint, in the order of the settings; `now` is Unix time in seconds."""
    return [_row(endpoint, records, now) for endpoint in fleet.endpoints.values()]


def _row(endpoint: Endpoint, records: Records, now: float) -> Row:
    load = records.load.get(endpoint.address)
    weight = records.weight.get(endpoint.address)
    traffic = records.traffic.get(endpoint.address)
    return Row(
        endpoint=endpoint.address,
        model=endpoint.model,
        version=endpoint.version,
        hardware=str(endpoint.hardware),
        ready=load.ready if load else None,
        kv_used=round(load.kv_used, 4) if load else None,
        in_flight=_in_flight(load, traffic),
        queued=load.waiting if load else None,
        match_ratio=traffic.match_ratio if traffic else None,
        weight=weight.value if weight else None,
        ttft_p50=traffic.ttft_p50 if traffic else None,
        ttft_p95=traffic.ttft_p95 if traffic else None,
        load_age=_age(load.at, now) if load else None,
        traffic_age=_age(traffic.at, now) if traffic else None,
        reason=load.reason if load else "",
    )


def _in_flight(load: Load | None, traffic: Traffic | None) -> int | None:
    """The newer of two views: the picker counts requests, the engine those it runs."""
    if traffic is not None and (load is None or traffic.at >= load.at - _SAME_TIME_SECONDS):
        return traffic.in_flight
    return load.running if load is not None else None


_SAME_TIME_SECONDS = 3.0
"""Both views are written about once a second: within this they are as fresh, and the picker's is exact."""


def _age(at: float, now: float) -> float:
    return round(max(now - at, 0.0), 1)


def as_json(url: str, shown: list[Row], records: Records, now: float) -> dict[str, object]:
    """One moment as plain data; `at` is Unix time in seconds, `redis` is `ok` or why it is away."""
    return {
        "url": url,
        "at": round(now, 3),
        "redis": records.away or "ok",
        "endpoints": [asdict(row) for row in shown],
    }


_HEADINGS = ("in flight", "queued", "match", "weight", "TTFT p50", "p95")


def render(shown: list[Row], records: Records, *, stale_after: float) -> Table:
    """The table for a screen. Figures older than `stale_after` seconds are dim, with their age."""
    several_models = len({row.model for row in shown}) > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_caption(records), caption_justify="left")
    for heading in ("endpoint", "version", "hardware"):
        table.add_column(heading)
    for heading in ("KV use", *_HEADINGS):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in shown:
        table.add_row(*_cells(row, several_models, stale_after))
    return table


def _caption(records: Records) -> Text:
    if records.away:
        return Text(f"Redis is away, figures are old: {records.away}", style="bold red")
    return Text("TTFT is that of streamed answers; others come whole.", style="dim")


def _cells(row: Row, several_models: bool, stale_after: float) -> list[Text]:
    load_style = "dim" if _is_old(row.load_age, stale_after) else ""
    traffic_style = "dim" if _is_old(row.traffic_age, stale_after) else ""
    version = f"{row.model}/{row.version}" if several_models else row.version
    return [
        Text(row.endpoint, style=load_style or ("red" if row.ready is False else "")),
        Text(version, style=load_style),
        Text(row.hardware, style=load_style),
        Text(share_text(row.kv_used), style=load_style),
        Text(_number(row.in_flight), style=load_style),
        Text(_number(row.queued), style=load_style),
        Text(share_text(row.match_ratio), style=traffic_style),
        Text(_number(row.weight)),
        Text(seconds_text(row.ttft_p50), style=traffic_style),
        Text(seconds_text(row.ttft_p95), style=traffic_style),
        Text(_note(row, stale_after), style="dim" if load_style or traffic_style else "red"),
    ]


def _note(row: Row, stale_after: float) -> str:
    if row.load_age is None:
        return "not read yet"
    if row.load_age > stale_after:
        return f"read {row.load_age:.0f} s ago"
    if not row.ready:
        return f"not ready: {row.reason}" if row.reason else "not ready"
    if row.traffic_age is not None and row.traffic_age > stale_after:
        return f"picker silent for {row.traffic_age:.0f} s"
    return ""


def _is_old(age: float | None, stale_after: float) -> bool:
    return age is None or age > stale_after


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def share_text(ratio: float | None) -> str:
    """A share, 0..1, for people: `42%`, or `-` where there is none."""
    return "-" if ratio is None else f"{ratio:.0%}"


def seconds_text(value: float | None) -> str:
    """A time in seconds for people: `420 ms`, `1.20 s`, or `-` where there is none."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
