from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kvpilot.cli import main
from sim import policies, workloads
from sim.timing import ENGINES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trace(tmp_path: Path) -> str:
    file = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 500 * n, "input_length": 1024, "output_length": 8, "hash_ids": [n % 4, 100 + n]}
        for n in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_json_has_every_policys_figures(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["sim", "--workload", trace, "--policies", "kvpilot,round_robin", "--seed", "3", "--json"]) == 0
    )
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found["policies"]) == ["kvpilot", "round_robin"]
    assert found["fleet"] == "uniform8"
    assert found["seeds"] == [3]
    figures = found["policies"]["kvpilot"]
    assert figures["rejected"] == 0
    assert 0 < figures["ttft_mean_s"] < figures["e2e_mean_s"]
    assert figures["ttft_p50_s"] <= figures["ttft_p90_s"] <= figures["ttft_p99_s"]
    assert {"e2e_p99_s", "tpot_mean_s", "token_hit_ratio"} <= figures.keys()
    assert err == ""


def test_all_policies_are_compared_in_a_table(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--workload", trace, "--fleet", "mixed4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.split()} >= set(policies.NAMES)
    assert any("TTFT mean" in line for line in lines)


def test_peers_do_not_care_how_many_answers_tell_their_usage(
    trace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(share: str) -> dict[str, dict[str, float]]:
        chosen = ["--policies", "lmetric", "--json", "--usage-share", share, "--speedup", "20"]
        assert main(["sim", "--workload", trace, *chosen]) == 0
        found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)["policies"]
        return found

    assert figures("0")["lmetric"] == figures("1")["lmetric"]


@pytest.mark.parametrize("share", ["-0.1", "1.01", "nan", "half"])
def test_a_share_is_from_0_to_1(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--usage-share", share]) == 2
    assert "is not a number from 0 to 1" in capsys.readouterr().err


def test_several_seeds_are_averaged(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    def mean(*arguments: str) -> float:
        assert main(["sim", "--workload", trace, "--policies", "random", "--json", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        return float(found["policies"]["random"]["ttft_mean_s"])

    first, second = mean("--seed", "1"), mean("--seed", "2")
    assert first != second
    assert mean("--seeds", "2") == pytest.approx((first + second) / 2)


def test_a_speedup_brings_queues(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    for speedup in ("1", "1000"):
        arguments = ["sim", "--workload", trace, "--policies", "random", "--json", "--speedup", speedup]
        assert main(arguments) == 0
        times.append(json.loads(capsys.readouterr().out)["policies"]["random"]["ttft_mean_s"])
    assert times[1] > 1.5 * times[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workload", "nope"], ("--workload", "'nope'", *workloads.NAMES)),
        (["--fleet", "nope"], ("--fleet", "'nope'", "uniform8", "mixed8")),
        (["--policies", "kvpilot,nope"], ("--policies", "'nope'", *policies.NAMES)),
        (["--speedup", "0"], ("--speedup", "'0'")),
        (["--seeds", "-1"], ("--seeds",)),
        (["--engine", "nope"], ("--engine", "'nope'", *ENGINES)),
        (["--plot", "no/such/place.png"], ("--plot", "no/such/place.png", "cannot be written")),
    ],
)
def test_a_mistake_is_one_line_that_names_what_would_be_right(
    arguments: list[str], said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for part in said:
        assert part in err


def test_a_file_that_is_no_trace_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text("{}\n")
    assert main(["sim", "--workload", str(file), "--policies", "random"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert str(file) in err


def test_the_variant_engine_gives_other_figures(trace: str, capsys: pytest.CaptureFixture[str]) -> None:
    def found(engine: str) -> dict[str, Any]:
        arguments = ["--workload", trace, "--policies", "random", "--json", "--engine", engine]
        assert main(["sim", *arguments]) == 0
        return dict(json.loads(capsys.readouterr().out))

    standard, variant = found("standard"), found("variant")
    assert (standard["engine"], variant["engine"]) == ("standard", "variant")
    assert standard["policies"]["random"]["ttft_mean_s"] != variant["policies"]["random"]["ttft_mean_s"]


def test_a_plot_draws_the_same_study_and_its_neighbouring_loads(
    trace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sim", "--workload", trace, "--policies", "kvpilot,random", "--json", "--speedup", "2"]
    assert main(arguments) == 0
    plain = capsys.readouterr().out
    plot = tmp_path / "plot.svg"
    assert main([*arguments, "--plot", str(plot)]) == 0
    assert capsys.readouterr().out == plain
    drawn = plot.read_text()
    assert "at speedup 2 on uniform8" in drawn
    for policy in ("kvpilot", "random"):
        assert policy in drawn
    for speedup in ("1", "1.5", "2.5", "3"):  # half, and half as much again
        assert f"<!-- {speedup} -->" in drawn
