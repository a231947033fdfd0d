from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kvpilot import cli

if TYPE_CHECKING:
    from tests.kvpilot.conftest import Command


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prompt-bytes", "10"], "'10' is not a whole number from 64 to 8388608"),
        (["--prompt-bytes", "4096,"], "'' is not a whole number"),
        (["--endpoints", "0"], "'0' is not a whole number from 1 to 10000"),
        (["--endpoints", "²"], "is not a whole number"),
        (["--mode", "guess"], "'guess' is not one of buffered, session, duplex"),
        (["--transport", "pigeon"], "'pigeon' is not one of grpc, http2"),
        (["--seconds", "nan"], "'nan' is not a number from 0.5 to 600"),
        (["--rounds", "0"], "'0' is not a whole number from 1 to 100"),
    ],
)
def test_says_in_one_line_what_would_be_right(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "picker", *options]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not said.out


FIGURES = {
    "prompt_bytes", "endpoints", "mode", "transport", "rps", "picker_cpu_us_per_request",
    "envoy_cpu_us_per_request", "added_p50_ms", "added_p95_ms", "added_p99_ms", "rss_mb", "rps_per_core",
    "vs_echo", "echo_cpu_us_per_request", "steered_share", "fallbacks", "told_by_log", "in_flight",
}  # fmt: skip


@pytest.mark.parametrize(("modes", "by_log"), [("buffered,session", True), ("duplex", False)])
def test_measures_through_a_real_envoy_and_leaves_nothing(kvpilot: Command, modes: str, by_log: bool) -> None:
    options = ["--endpoints", "3", "--seconds", "0.5", "--rounds", "1", "--transport", "http2", "--json"]
    process = kvpilot.start("bench", "picker", *options, "--mode", modes)
    out, err = process.communicate(timeout=55)
    assert process.returncode == 0, err
    cases = json.loads(out)["cases"]
    assert [case["mode"] for case in cases] == modes.split(",")
    for case in cases:
        assert case.keys() >= FIGURES
        assert case["rps"] > 0
        assert case["picker_cpu_us_per_request"] > 0
        assert case["envoy_cpu_us_per_request"] > 0
        assert case["steered_share"] > 0.9
        assert case["fallbacks"] == 0
        assert (case["told_by_log"] > 0) == by_log
        assert by_log or case["in_flight"] == 0  # an entry of the log may still be on its way
        assert case["rss_mb"] > 10
        low, high = case["spread"]["rps"]
        assert low <= case["rps"] <= high
    assert not kvpilot.running()
    assert not kvpilot.files()
