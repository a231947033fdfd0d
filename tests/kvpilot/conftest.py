"""A private temporary directory that marks every process of a test, so that none can be left unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Command:
    """Runs `kvpilot` with `directory` as its temporary directory."""

    directory: Path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "KVPILOT_REDIS_URL"}
        return subprocess.Popen(
            [sys.executable, "-m", "kvpilot", *arguments],
            cwd=ROOT,
            env={**inherited, "TMPDIR": str(self.directory), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def running(self) -> list[str]:
        """Command lines of its processes. Redis overwrites its environment, but not with another path."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment, line = ((process / name).read_bytes() for name in ("environ", "cmdline"))
            except OSError:
                continue
            if f"TMPDIR={self.directory}\0".encode() in environment or bytes(self.directory) in line:
                found.append(line.replace(b"\0", b" ").decode())
        return found

    def files(self) -> list[str]:
        """Runtime directories that it left."""
        return [path.name for path in self.directory.glob("kvpilot-*")]


@pytest.fixture
def kvpilot() -> Iterator[Command]:
    directory = Path(tempfile.mkdtemp(prefix="kv-test-"))  # short: unix sockets lie in it
    yield Command(directory)
    shutil.rmtree(directory, ignore_errors=True)
