"""`kvpilot endpoint-picker`: the picker alone, started as gateways' manifests start an endpoint picker.

The flags are those of the Gateway API's conformance fixtures. The pool's endpoints come from the settings
file: to find them by the pool's name in Kubernetes is not there yet, so flags that only that would need are
taken, and said to have no effect.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from ext_proc.app import run
from fleet import logs, process, settings_file
from fleet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.settings import Settings

DEFAULT_FILE = Path("/etc/kvpilot/kvpilot.yaml")
"""Where a ConfigMap is mounted, since the fixtures name no file."""

GRPC_PORT, HEALTH_PORT = 9002, 9003
"""What gateways' manifests expect."""

_LOG = logging.getLogger(__name__)


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Make `endpoint-picker` one of the command line's commands."""
    command = commands.add_parser("endpoint-picker", help="serve a gateway as its endpoint picker")
    command.set_defaults(run=_run)
    command.add_argument("-c", "--config", type=Path, default=DEFAULT_FILE, metavar="kvpilot.yaml")
    command.add_argument("--grpc-port", type=_port, default=GRPC_PORT, help="gateways ask here")
    command.add_argument("--grpc-health-port", type=_port, default=HEALTH_PORT, help="health checks")
    command.add_argument("--host", default="0.0.0.0", help="listen on this address")  # noqa: S104
    command.add_argument("--pool-name", default="", help="no effect: endpoints come from the file")
    command.add_argument("--pool-namespace", default="", help="no effect, as --pool-name")
    command.add_argument("--endpoint-target-ports", default="", help="no effect, as --pool-name")
    command.add_argument("--zap-encoder", choices=("json", "console"), default="json", help="log lines")
    command.add_argument("--test-headers", action="store_true", help="the conformance tests' headers count")


def settings_for(options: argparse.Namespace) -> Settings:
    """The file's settings, with what the flags say. Raises ConfigError."""
    if options.grpc_port == options.grpc_health_port:
        raise ConfigError(
            "command line", "", None, "--grpc-health-port: expected another port than --grpc-port"
        )
    settings = settings_file.load(options.config)
    asked = settings.endpoint_picker.model_copy(
        update={
            "mode": "always",
            "health_address": f"{options.host}:{options.grpc_health_port}",
            "test_headers": options.test_headers or settings.endpoint_picker.test_headers,
        }
    )
    changes = {"picker_address": f"{options.host}:{options.grpc_port}", "endpoint_picker": asked}
    return settings.model_copy(update=changes)


def without_effect(options: argparse.Namespace) -> Iterator[str]:
    """The flags that were given and change nothing."""
    for flag in ("pool_name", "pool_namespace", "endpoint_target_ports"):
        if getattr(options, flag):
            yield f"--{flag.replace('_', '-')}"


def workers_without_effect(settings: Settings) -> str:
    """What to say of the file's `picker.workers`; '' where it changes nothing."""
    workers = settings.picker.workers
    return f"picker.workers {workers}: no effect, one worker serves" if workers > 1 else ""


def _run(options: argparse.Namespace) -> None:
    settings = settings_for(options)
    logs.configure("info", "json" if options.zap_encoder == "json" else "text")
    if flags := ", ".join(without_effect(options)):
        _LOG.warning("%s: no effect, the pool's endpoints come from %s", flags, options.config)
    if said := workers_without_effect(settings):
        _LOG.warning("%s", said)
    uvloop.run(process.until_signalled(run, settings, str(options.config)))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
