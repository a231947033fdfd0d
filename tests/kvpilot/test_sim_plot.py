from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

import pytest

from fleet.errors import ConfigError
from kvpilot import sim_plot
from kvpilot.sim_plot import Curves, check, draw
from sim import policies

if TYPE_CHECKING:
    from pathlib import Path

TWO = Curves(
    "two policies",
    {"round_robin": [0.5, 0.6, 2.0], "kvpilot": [0.1, 0.2, 0.3]},
    {"round_robin": [(1.0, 1.0), (1.5, 2.0)], "kvpilot": [(1.0, 0.2), (1.5, 0.3)]},
)
EVERYONE = tuple(dict.fromkeys((*policies.NAMES, "oracle")))


def texts(path: Path) -> list[str]:
    """What an SVG says: matplotlib writes each text beside its glyphs, as a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_writes_a_picture_of_the_kind_its_name_says(tmp_path: Path, name: str, magic: bytes) -> None:
    draw(TWO, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_says_what_is_drawn_in_which_unit_and_lists_the_fastest_first(tmp_path: Path) -> None:
    draw(TWO, tmp_path / "a.svg")
    said = texts(tmp_path / "a.svg")
    assert {"two policies", "TTFT (s)", "mean TTFT (s)"} <= set(said)
    legend = [text for text in said if text.split()[0] in TWO.ttft]
    assert legend == ["kvpilot  200 ms", "round_robin  1.03 s"]


def test_a_range_below_ten_has_labels_on_its_axis(tmp_path: Path) -> None:
    narrow = Curves("narrow", {"random": [0.21, 0.3, 0.9]}, {"random": [(1.0, 0.22), (2.0, 0.6)]})
    draw(narrow, tmp_path / "a.svg")
    assert texts(tmp_path / "a.svg").count("0.5") == 2


def test_a_policy_that_served_nothing_is_still_listed(tmp_path: Path) -> None:
    draw(Curves("none", {**TWO.ttft, "random": []}, {**TWO.load, "random": []}), tmp_path / "a.svg")
    assert any(text.startswith("random  ") for text in texts(tmp_path / "a.svg"))


def test_no_two_of_all_policies_look_alike_and_ours_is_the_thickest() -> None:
    styles = sim_plot._styles(EVERYONE)
    looks = {(style["color"], str(style.get("linestyle"))) for style in styles.values()}
    assert len(looks) == len(EVERYONE)
    widths = {name: style["linewidth"] for name, style in styles.items()}
    assert all(widths["kvpilot"] > width for name, width in widths.items() if name != "kvpilot")


def test_a_distribution_keeps_its_ends_and_is_drawn_by_few_points() -> None:
    times = [float(n) for n in range(1, 100_001)]
    at, share = sim_plot._steps(times)
    assert len(at) <= 401
    assert (at[0], at[-1], share[-1]) == (1.0, 100_000.0, 1.0)
    assert all(abs(part - time / 100_000) < 1e-9 for time, part in zip(at, share, strict=True))


@pytest.mark.parametrize("name", ["a.gif", "plot", "missing/a.png"])
def test_a_path_that_cannot_be_drawn_to_is_one_clear_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / name))) as raised:
        check(tmp_path / name)
    assert "--plot" in str(raised.value)


def test_a_directory_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        check(tmp_path / "a.png")


def test_a_disk_that_refuses_is_a_mistake_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim_plot, "check", lambda _: None)  # it was fine a moment ago
    with pytest.raises(ConfigError, match=r"gone/a\.png.*cannot be written"):
        draw(TWO, tmp_path / "gone" / "a.png")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(sim_plot, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    with pytest.raises(ConfigError, match=re.escape("pip install 'kvpilot[plot]'")):
        check(tmp_path / "a.png")
