"""A whole mesh on this machine: Redis, emulated engines, xDS server, picker and a real Envoy, as children.

Contract: `LocalMesh` is an async context manager. Inside it every child runs, a crashed one is named and
restarted; outside it none is left, however the inside ended, on Linux even if this process was killed. All
children read one resolved settings file. Start-up mistakes are one-line `KvpilotError`s.
"""

from kvpilot.mesh.local import LocalMesh

__all__ = ["LocalMesh"]
