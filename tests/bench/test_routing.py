from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fleet.errors import ConfigError
from routing import load, main
from routing_plan import Run

if TYPE_CHECKING:
    from pathlib import Path

ONE = Run("cases", "standard", "uniform8", "conversation", 2.0, 1, "random")
CHOICE = [
    *("--policies", "random,lmetric", "--workloads", "conversation"),
    *("--engines", "standard", "--fleets", "uniform8", "--seeds", "1", "--jobs", "1"),
]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    file = tmp_path / "trace.jsonl"
    request = {"input_length": 1024, "output_length": 8}
    lines = [{"timestamp": 500 * n, **request, "hash_ids": [n % 4, 100 + n]} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_plays_what_is_missing_and_repeats_nothing(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    kept = json.dumps({**ONE.as_json(), "ttft_mean_s": 7.0, "busy_arriving": 0.5})
    out.write_text(kept + "\n")
    command = ["run", "cases", "--out", str(out), "--trace", trace, *CHOICE]
    assert main([*command, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 8  # two policies at four speedups
    runs = load(out)
    assert out.read_text().startswith(kept)
    assert runs[ONE]["ttft_mean_s"] == 7.0
    other = Run("cases", "standard", "uniform8", "conversation", 3.0, 1, "lmetric")
    assert 0 < (runs[other]["ttft_mean_s"] or 0) < 1
    assert runs[other]["rejected"] == 0


def test_a_file_that_holds_runs_is_not_added_to_unasked(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.jsonl"
    out.write_text(json.dumps(ONE.as_json()) + "\n")
    assert main(["run", "cases", "--out", str(out), "--trace", trace, *CHOICE]) == 2
    assert "--resume or --replace" in capsys.readouterr().err


def test_without_a_trace_its_cases_are_left_out_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "cases", "--out", str(tmp_path / "runs.jsonl"), *CHOICE]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"] == 0
    assert "without --trace, conversation is left out" in err


def test_a_trace_that_is_none_is_one_line_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, missing = tmp_path / "runs.jsonl", tmp_path / "missing.jsonl"
    assert main(["run", "cases", "--out", str(out), "--trace", str(missing), *CHOICE]) == 2
    assert str(missing) in capsys.readouterr().err
    assert not out.exists()


def test_the_last_line_of_a_run_counts(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(json.dumps({**ONE.as_json(), "ttft_mean_s": n}) + "\n" for n in (1.0, 2.0)))
    assert load(file) == {ONE: {"ttft_mean_s": 2.0}}


@pytest.mark.parametrize("line", ["{", "[]", "{}", "7", '{"experiment": "cases"}'])
def test_a_line_that_is_no_run_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(f"{json.dumps(ONE.as_json())}\n{line}\n")
    with pytest.raises(ConfigError, match="line 2"):
        load(file)


def test_a_table_goes_into_its_section_of_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, document = tmp_path / "runs.jsonl", tmp_path / "doc.md"
    burst = Run("burst", "standard", "mixed8", "groups", 1.15, 1, "kvpilot")
    names = ("most_over_fair", "prefilled_on", "ttft_mean_s", "last_token_s", "rejected")
    file.write_text(json.dumps({**burst.as_json(), **dict.fromkeys(names, 1.0)}) + "\n")
    document.write_text("# Title\n<!-- burst -->\n<!-- end of burst -->\n")
    assert main(["table", str(file), "--into", str(document)]) == 0
    assert "| standard | mixed8 | kvpilot (rejected 1) | 1 | 1.00 | **failed** |" in document.read_text()
    document.write_text("# Title\n")
    assert main(["table", str(file), "--into", str(document)]) == 2
    assert "<!-- burst -->" in capsys.readouterr().err
