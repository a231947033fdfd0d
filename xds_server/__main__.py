"""`python -m xds_server -c kvpilot.yaml`."""

from __future__ import annotations

from xds_server.app import main

raise SystemExit(main())
