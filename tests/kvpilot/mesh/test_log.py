from __future__ import annotations

import os
import traceback
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


def test_a_traceback_is_told_by_its_exception(log: ChildLog) -> None:
    told = b"pydantic_core.ValidationError: 1 error for X"
    os.write(log.descriptor, b"Traceback:\n    x()\n" + told + b"\na\n  Field required\n    For more visit\n")
    assert log.last_line() == told.decode()
    os.write(log.descriptor, b"2025-11-20 10:00:00,000 INFO xds_server: goes on\n")
    assert log.last_line() == "2025-11-20 10:00:00,000 INFO xds_server: goes on"
    log.close()


def test_a_group_of_exceptions_is_told_by_the_last_one_without_its_frame(log: ChildLog) -> None:
    try:
        raise ExceptionGroup("several", [OSError("first"), ExceptionGroup("inner", [ValueError("no such")])])
    except ExceptionGroup as group:
        os.write(log.descriptor, "".join(traceback.format_exception(group)).encode())
    assert log.last_line() == "ValueError: no such"
    log.close()


def test_finds_what_this_life_said_about_something(log: ChildLog) -> None:
    os.write(log.descriptor, b"12 node refused lds: old\n")
    log.mark()
    assert log.find("node refused") == ""
    os.write(log.descriptor, b"12 node refused lds: bad\nother\n")
    assert log.find("node refused") == "node refused lds: bad"
    log.close()
