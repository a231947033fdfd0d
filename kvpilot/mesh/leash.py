"""Run as a script in front of every child: ties its life to the parent's, then becomes the child.

`leash.py PARENT_PID PROGRAM [ARGUMENT…]`. A wrapper and not a `preexec_fn`, because the parent has threads
and may not run Python between fork and exec. Imports the standard library only; the process id stays.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal this process gets when its parent dies
_CANNOT_START = 2  # the exit code that the supervisor reads as "do not try again"


def main() -> None:
    """Become the program, or exit with 2 and one line that says why not."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(_CANNOT_START)  # the parent died before the leash was on
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    try:
        os.execv(program[0], program)  # noqa: S606 - the supervisor chose the program
    except OSError as error:
        sys.stderr.write(f"{program[0]} cannot be run: {error.strerror}\n")
        sys.exit(_CANNOT_START)


if __name__ == "__main__":
    main()
