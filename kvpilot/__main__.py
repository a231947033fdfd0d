"""`kvpilot` and `python -m kvpilot`: the command line, with Ctrl-C silent from the first moment."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command and return its exit code."""
    # The imports take a while, and nothing has been started: until there is a loop to tell, just end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kvpilot import cli  # noqa: PLC0415 - the imports that take a while

    code = cli.main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is over; a second Ctrl-C must not change the code
    return code


if __name__ == "__main__":
    sys.exit(main())
