"""A short run of the fuzzer with a fixed seed: what it would find at once, no change may bring back."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = 5_000


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
def test_five_thousand_inputs_raise_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    ran = subprocess.run(
        [
            sys.executable,
            ROOT / "tests/fuzz/harness.py",
            corpus,
            f"-runs={RUNS}",
            "-seed=7",
            "-max_len=4096",
            "-timeout=10",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"Done {RUNS}" in ran.stderr
