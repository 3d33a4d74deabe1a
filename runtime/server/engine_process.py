"""Starts the engine process, and makes sure that it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from runtime.server.config import KEY_VARIABLE

_LEAVE_S = 5.0
"""How long an engine may take to leave after its socket is closed: a step, and Python's exit."""


class EngineProcess:
    """A child that serves one end of an anonymous socket pair; the other end is `connection`.

    The pair has no name, so nobody else can connect, and nothing lies about if all is killed.
    """

    def __init__(self, module: str) -> None:
        """Start `module`, with the socket's number and our process id as its arguments."""
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        environment = {k: v for k, v in os.environ.items() if k != KEY_VARIABLE}
        command = [sys.executable, "-m", module]
        try:
            # A process group of its own: Ctrl-C in a terminal is for the front end to answer.
            self._child = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def leave(self) -> int:
        """Wait for its end, after its socket was closed; kills it if it lingers.

        Returns:
            Its exit code; negative for a signal.
        """
        try:
            return self._child.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it at once."""
        self._child.kill()
        return self._child.wait()
