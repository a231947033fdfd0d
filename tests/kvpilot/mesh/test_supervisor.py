from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet.errors import StartError
from kvpilot.mesh import supervisor
from kvpilot.mesh.supervisor import Backoff, Child, Program, Supervisor, describe_exit
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def _python(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-I", "-S", "-c", code))


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Watched:
    def __init__(self, directory: Path) -> None:
        self.lines: list[str] = []
        self.supervisor = Supervisor(directory, self.lines.append)

    async def start(self, name: str, code: str) -> Child:
        child = self.supervisor.start(_python(name, code))
        await until(lambda: child.last_line == "ready")
        return child


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    await made.supervisor.stop()


def _pid(child: Child) -> int:
    assert child.pid is not None
    return child.pid


async def test_a_killed_child_is_named_and_restarted(watched: Watched) -> None:
    child = await watched.start("picker", SLEEP)
    first = _pid(child)
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.restarts == 1 and child.pid not in (None, first))
    assert watched.lines == ["picker was ended by SIGKILL; restarting in 0.2 s"]


async def test_a_crash_is_told_with_its_code_and_last_line(watched: Watched) -> None:
    watched.supervisor.start(_python("xds", "raise ValueError('no such thing')"))
    await until(lambda: len(watched.lines) >= 2)
    assert watched.lines[0] == "xds exited with code 1; restarting in 0.2 s: ValueError: no such thing"
    assert "restarting in 0.4 s" in watched.lines[1]
    watched.supervisor.check()


async def test_a_child_that_keeps_dying_is_given_up_before_the_mesh_was_ready(watched: Watched) -> None:
    child = watched.supervisor.start(_python("xds", "raise ValueError('no such thing')"))
    await until(lambda: child.failure)
    with pytest.raises(StartError) as caught:
        watched.supervisor.check()
    said = "xds does not stay up (3 starts; it exited with code 1): ValueError: no such thing"
    assert str(caught.value) == said
    assert len(watched.lines) == 2


async def test_a_child_that_keeps_dying_later_is_restarted_for_ever(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_SECONDS", 0.01)
    child = watched.supervisor.start(_python("xds", "raise SystemExit(1)"))
    watched.supervisor.settle()
    await until(lambda: child.restarts >= 4)
    watched.supervisor.check()


async def test_a_log_that_cannot_be_opened_is_a_start_failure(tmp_path: Path) -> None:
    own = Supervisor(tmp_path / "nowhere", print)
    with pytest.raises(StartError, match=r"^xds: .*xds.log cannot be opened: No such file"):
        own.start(_python("xds", SLEEP))


async def test_exit_code_2_at_the_first_start_is_a_start_failure(watched: Watched) -> None:
    program = _python("xds", "import sys; print('xds: bad field'); sys.exit(2)")
    child = watched.supervisor.start(program)
    await until(lambda: child.failure)
    with pytest.raises(StartError, match=r"^xds cannot start: xds: bad field$"):
        watched.supervisor.check()
    assert child.pid is None
    assert watched.lines == []


async def test_a_program_that_is_not_there_is_a_start_failure(watched: Watched) -> None:
    child = watched.supervisor.start(Program("envoy", ("/nowhere/envoy",)))
    await until(lambda: child.failure)
    with pytest.raises(StartError, match="/nowhere/envoy cannot be run: No such file"):
        watched.supervisor.check()


async def test_stop_ends_all_in_reverse_order_and_may_be_repeated(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = [_pid(await watched.start(name, SLEEP)) for name in ("redis", "xds", "envoy")]
    asked: list[int] = []
    real = os.killpg

    def killpg(pid: int, number: int) -> None:
        if number == signal.SIGTERM:
            asked.append(pid)
        real(pid, number)

    monkeypatch.setattr(os, "killpg", killpg)
    await watched.supervisor.stop()
    await watched.supervisor.stop()
    assert asked == pids[::-1]
    assert not any(_is_running(pid) for pid in pids)
    assert watched.lines == []


async def test_stop_kills_a_child_that_does_not_listen(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    pid = _pid(await watched.start("deaf", DEAF))
    await watched.supervisor.stop()
    assert not _is_running(pid)


async def test_stop_ends_a_frozen_child_without_waiting(watched: Watched) -> None:
    pid = _pid(await watched.start("frozen", SLEEP))
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await watched.supervisor.stop()
    assert not _is_running(pid)
    assert time.monotonic() - began < supervisor.GRACE_SECONDS


async def test_stop_ends_what_a_child_started_itself(watched: Watched) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {DEAF!r}], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)"
    )
    child = watched.supervisor.start(_python("engines", code))
    await until(lambda: child.last_line.isdecimal())  # noqa: PLW0108 - read anew each time
    grandchild = int(child.last_line)
    await watched.supervisor.stop()
    await until(lambda: not _is_running(grandchild))


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.005, 0.02])
async def test_stop_in_the_middle_of_a_start_leaves_nothing(
    watched: Watched, tmp_path: Path, delay: float
) -> None:
    marks = [f"kvpilot-test-{tmp_path.name}-{n}" for n in range(3)]
    for mark in marks:
        watched.supervisor.start(_python(mark, f"import time; time.sleep(60)  # {mark}"))
    await asyncio.sleep(delay)
    await watched.supervisor.stop()
    assert not [mark for mark in marks if _running_with(mark)]


async def test_stop_during_the_wait_before_a_restart_starts_nothing(watched: Watched) -> None:
    child = watched.supervisor.start(_python("short", "raise SystemExit(1)"))
    await until(lambda: watched.lines)
    await watched.supervisor.stop()
    assert child.pid is None


def _running_with(mark: str) -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in command and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the leash is a Linux facility")
def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
from kvpilot.mesh.supervisor import Program, Supervisor

async def main():
    supervisor = Supervisor(Path({str(tmp_path)!r}), print)
    children = [supervisor.start(Program(f"c{{n}}", (sys.executable, "-c", {DEAF!r}))) for n in range(2)]
    while not all(child.last_line == "ready" for child in children):
        await asyncio.sleep(0.02)
    print(*(child.pid for child in children), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(_is_running(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + 5
    while any(_is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if _is_running(pid)]


def test_back_off_doubles_to_its_limit_and_starts_again_after_health() -> None:
    backoff = Backoff()
    assert [backoff.after(lived=1) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(lived=10) == 0.2


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exited with code 0"), (-9, "was ended by SIGKILL"), (-50, "was ended by signal 50")],
)
def test_exits_are_told_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
