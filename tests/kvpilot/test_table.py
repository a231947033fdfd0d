from __future__ import annotations

import io
import json

from rich.console import Console

from fleet.model import Endpoint, Fleet, Hardware, Load, Model, Traffic, Version, Weight
from kvpilot.table import Records, as_json, render, rows

NOW = 1000.0
A, B = "10.0.0.1:9000", "10.0.0.2:9000"


def _fleet(models: int = 1) -> Fleet:
    return Fleet(
        tuple(
            Model(f"m{n}", (Version("stable", 100, tuple(_endpoint(a, f"m{n}") for a in addresses)),))
            for n, addresses in enumerate([(A, B)] if models == 1 else [(A,), (B,)])
        )
    )


def _endpoint(address: str, model: str) -> Endpoint:
    return Endpoint(address, model, "stable", "pool", Hardware("H100-80GB", 4))


def _load(at: float = NOW, **changes: object) -> Load:
    values = {"kv_blocks_used": 41, "kv_blocks_max": 100, "running": 7, "waiting": 3, **changes}
    return Load(at=at, **values)  # type: ignore[arg-type]


def _records(load: Load | None = None, traffic: Traffic | None = None, away: str = "") -> Records:
    return Records(
        load={A: load or _load(), B: _load()},
        weight={A: Weight(NOW - 100, 128)},
        traffic={A: traffic} if traffic else {},
        away=away,
    )


def _text(records: Records, fleet: Fleet | None = None, *, styles: bool = False) -> str:
    console = Console(
        record=True, width=160, force_terminal=True, color_system="standard", file=io.StringIO()
    )
    console.print(render(rows(fleet or _fleet(), records, NOW), records, stale_after=10))
    return console.export_text(styles=styles)


def _line(text: str, of: str) -> list[str]:
    return next(line for line in text.splitlines() if of in line).split()


def test_shows_every_figure_of_an_endpoint() -> None:
    traffic = Traffic(NOW, in_flight=9, match_ratio=0.73, ttft_p50=0.23, ttft_p95=1.5)
    line = _line(_text(_records(traffic=traffic)), A)
    assert line == [A, "stable", "H100-80GB-TP4", "41%", "9", "3", "73%", "128", "230", "ms", "1.50", "s"]


def test_shows_a_dash_and_not_a_zero_for_what_nobody_reported() -> None:
    line = _line(_text(Records()), A)
    assert line == [A, "stable", "H100-80GB-TP4", *["-"] * 7, "not", "read", "yet"]


def test_takes_the_engines_count_when_the_pickers_is_old() -> None:
    row = rows(_fleet(), _records(traffic=Traffic(NOW - 60, in_flight=9)), NOW)[0]
    assert row.in_flight == 7


def test_a_stale_reading_is_dim_and_tells_its_age() -> None:
    styled = _text(_records(load=_load(at=NOW - 14)), styles=True)
    stale, fresh = (next(line for line in styled.splitlines() if address in line) for address in (A, B))
    assert "read 14 s ago" in stale
    assert f"\x1b[2m{A}" in stale
    assert f"\x1b[2m{B}" not in fresh


def test_a_silent_picker_dims_only_its_own_figures() -> None:
    styled = _text(_records(traffic=Traffic(NOW - 30, match_ratio=0.5)), styles=True)
    line = next(line for line in styled.splitlines() if A in line)
    assert "picker silent for 30 s" in line
    assert f"\x1b[2m{A}" not in line


def test_an_endpoint_that_is_not_ready_says_why() -> None:
    assert "not ready: connection refused" in _text(
        _records(load=_load(ready=False, reason="connection refused"))
    )


def test_says_that_redis_is_away_and_keeps_the_figures() -> None:
    text = _text(_records(away="redis://x: Redis does not answer"))
    assert "Redis is away, figures are old: redis://x: Redis does not answer" in text
    assert "41%" in _line(text, A)


def test_names_the_model_where_there_are_several() -> None:
    text = _text(_records(), _fleet(models=2))
    assert "m0/stable" in text
    assert "m1/stable" in text


def test_text_from_the_fleet_is_never_taken_as_markup() -> None:
    assert "[bold]odd[/nothing]" in _text(_records(load=_load(ready=False, reason="[bold]odd[/nothing]")))


def test_json_has_every_endpoint_and_the_state_of_redis() -> None:
    records = _records(traffic=Traffic(NOW, in_flight=9, ttft_p50=0.2), away="gone")
    made = json.loads(json.dumps(as_json("http://x", rows(_fleet(), records, NOW), records, NOW)))
    assert made["url"] == "http://x"
    assert made["redis"] == "gone"
    first, second = made["endpoints"]
    assert (first["endpoint"], first["in_flight"], first["ttft_p50"], first["weight"]) == (A, 9, 0.2, 128)
    assert (second["endpoint"], second["ttft_p50"], second["weight"]) == (B, None, None)
