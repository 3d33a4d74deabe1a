"""A worker process: one JSON request per line on stdin, one JSON answer per line on stdout.

Started by `pool`; ends when stdin closes or its parent dies.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from autotune.evaluate import handle

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests until stdin closes."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call above
        return
    # Compilers and kernels may print: keep the protocol on a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(handle(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
