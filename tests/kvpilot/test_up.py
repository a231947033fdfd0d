from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.kvpilot.conftest import Command

CHILDREN = ("redis-server", "-m sim", "-m xds_server", "-m ext_proc", "envoy")


@contextmanager
def _up(kvpilot: Command, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with kvpilot.start("up", "--json", "--port", str(free_port()), *arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def _first(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    made: dict[str, Any] = json.loads(line)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_normal_end_that_leaves_nothing(kvpilot: Command, number: signal.Signals) -> None:
    with _up(kvpilot) as process:
        assert len(_first(process)["endpoints"]) == 6
        lines = kvpilot.running()
        assert all(any(child in line for line in lines) for child in CHILDREN)
        process.send_signal(number)
        process.send_signal(number)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert kvpilot.running() == []
    assert kvpilot.files() == []


def test_a_killed_kvpilot_leaves_no_child(kvpilot: Command) -> None:
    with _up(kvpilot) as process:
        _first(process)
        process.kill()
        process.wait(timeout=10)
    deadline = time.monotonic() + 5
    while (left := kvpilot.running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_two_on_one_port_started_together_are_one_that_runs_and_one_that_says_why(kvpilot: Command) -> None:
    port = str(free_port())
    both = [kvpilot.start("up", "--json", "--port", port, "--for", "3") for _ in range(2)]
    said = {process.returncode: err for process in both for _, err in [process.communicate(timeout=40)]}
    assert said.keys() == {0, 2}
    assert said[2].startswith("kvpilot: ")
    assert "address already in use" in said[2]
    assert said[2].count("\n") == 1
    assert kvpilot.files() == []


def test_the_next_start_removes_what_a_killed_one_left(kvpilot: Command) -> None:
    with _up(kvpilot) as process:
        _first(process)
        process.kill()
        process.wait(timeout=10)
    (left,) = kvpilot.files()
    assert left.startswith(f"kvpilot-{process.pid}-")
    with _up(kvpilot) as process:
        _first(process)
        assert left not in kvpilot.files()


@pytest.mark.parametrize("library", ["uvloop", "pydantic_core", "aiohttp"])
def test_ctrl_c_during_the_imports_ends_without_a_word(kvpilot: Command, library: str) -> None:
    with _up(kvpilot) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while f"/{library}/" not in maps.read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (out, err) == ("", "")
    assert process.returncode in (-signal.SIGINT, 0)
    assert kvpilot.running() == []


def test_ends_by_itself_after_the_time_that_was_asked_for(kvpilot: Command) -> None:
    with _up(kvpilot, "--for", "1.5") as process:
        out, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert [json.loads(line)["redis"] for line in out.splitlines()] == ["ok", "ok"]
    assert kvpilot.running() == []
