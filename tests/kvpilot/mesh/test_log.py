from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kvpilot.mesh.log import ChildLog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> ChildLog:
    return ChildLog(tmp_path / "child.log")


def test_finds_the_last_line_that_says_something(log: ChildLog) -> None:
    os.write(log.descriptor, b"first\nlast words\n\n  \n")
    assert log.last_line() == "last words"
    log.close()


def test_forgets_what_an_earlier_life_said(log: ChildLog) -> None:
    os.write(log.descriptor, b"old\n")
    log.mark()
    assert log.last_line() == ""
    os.write(log.descriptor, b"new\n")
    assert log.last_line() == "new"
    log.close()


def test_survives_bytes_that_are_no_text_and_control_characters(log: ChildLog) -> None:
    os.write(log.descriptor, b"x" * 20_000 + b"\n\xff\x1b[31mred\n")
    assert log.last_line() == "\ufffd [31mred"
    log.close()
