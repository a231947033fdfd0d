"""`python -m kvpilot` is the `kvpilot` command."""

from __future__ import annotations

import sys

from kvpilot.cli import main

sys.exit(main())
