"""The private directory of one mesh: sockets, files and logs, gone with the mesh.

Its name says which process made it, and a lock on it that this process lives: what a killed one could not
remove, the next start does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_LONGEST_PARENT = 60  # characters: a unix socket's whole path has 107, and our names need up to 36
_SHORT_PARENT = "/tmp"  # noqa: S108 - the directory made in it is private and has a random name
_NAME = re.compile(r"kvpilot-([1-9][0-9]{0,6})-\w+")  # process ids have 7 digits at most


@contextlib.asynccontextmanager
async def runtime_directory() -> AsyncIterator[Path]:
    """A new directory, this user's only, inside the context. Raises OSError if it cannot be made."""
    made = _made()
    path = await asyncio.to_thread(made.__enter__)
    try:
        yield path
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


@contextlib.contextmanager
def _made() -> Iterator[Path]:
    parent = tempfile.gettempdir()
    short = Path(parent if len(parent) <= _LONGEST_PARENT else _SHORT_PARENT)
    remove_abandoned(short)
    prefix = f"kvpilot-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=short, ignore_cleanup_errors=True) as name:
        descriptor = _open(Path(name))
        try:
            with contextlib.suppress(OSError):  # a file system without locks: then nobody removes it either
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_abandoned(parent: Path) -> None:
    """Remove what killed meshes of this user left in `parent`; whatever cannot be removed stays."""
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is not None and not _runs(int(name[1])) and _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)  # it does not follow links


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # someone else's
    return True


def _is_abandoned(path: Path) -> bool:
    """Whether it is our own directory, no link, and unlocked: in another container its process may live."""
    try:
        descriptor = _open(path)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return found.st_uid == os.geteuid()


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
