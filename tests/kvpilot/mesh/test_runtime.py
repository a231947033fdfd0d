from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kvpilot.mesh.runtime import remove_abandoned, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def dead() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """What a mesh holds for its life."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def _leftover(parent: Path, pid: int, name: str = "abcd_123") -> Path:
    path = parent / f"kvpilot-{pid}-{name}"
    (path / "logs").mkdir(parents=True)
    (path / "logs" / "xds.log").write_text("last words")
    return path


async def test_names_its_process_is_private_and_goes_with_the_context() -> None:
    async with runtime_directory() as path:
        assert path.name.startswith(f"kvpilot-{os.getpid()}-")
        assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o700
        await asyncio.to_thread((path / "file").write_text, "x")
    assert not path.exists()


def test_what_a_killed_mesh_left_is_removed(tmp_path: Path, dead: int) -> None:
    left = _leftover(tmp_path, dead)
    remove_abandoned(tmp_path)
    assert not left.exists()


def test_what_may_still_be_in_use_stays(tmp_path: Path, dead: int) -> None:
    ours = _leftover(tmp_path, os.getpid())
    elsewhere = _leftover(tmp_path, dead, "in_another_container")
    others = [
        tmp_path / name for name in (f"kvpilot-{dead}", f"kvpilot-{dead}x-1", "kvpilot-0-a", "kvpilot-a-b")
    ]
    for other in others:
        other.mkdir()
    with _lock(elsewhere):
        remove_abandoned(tmp_path)
        assert all(path.exists() for path in [ours, elsewhere, *others])
    remove_abandoned(tmp_path)
    assert not elsewhere.exists()


def test_links_and_files_are_left_alone(tmp_path: Path, dead: int) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").write_text("x")
    link, file = tmp_path / f"kvpilot-{dead}-link", tmp_path / f"kvpilot-{dead}-file"
    link.symlink_to(target)
    file.write_text("x")
    (_leftover(tmp_path, dead) / "inner").symlink_to(target)
    remove_abandoned(tmp_path)
    assert link.is_symlink()
    assert file.is_file()
    assert (target / "file").is_file()
    assert not list(tmp_path.glob("kvpilot-*-abcd_123"))


def test_another_users_directory_is_left_alone(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _leftover(tmp_path, dead)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    remove_abandoned(tmp_path)
    assert left.is_dir()


def test_a_parent_that_cannot_be_read_is_no_failure(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "nowhere")
