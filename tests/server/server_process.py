"""A server in a process of its own, and what can be known of it from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from live_server import wait_until

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Process:
    """A server process, its lines, and its engine's process id."""

    def __init__(self, words: list[str], *, first_on_path: str = "", **environment: str) -> None:
        known = os.environ.get("PYTHONPATH", "")
        path = [*filter(None, [first_on_path]), str(ROOT), str(HERE), known]
        self.child = subprocess.Popen(
            [sys.executable, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
            process_group=0,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def url(self, timeout_s: float = 60) -> str:
        """Wait for the ready line."""
        pattern = re.compile(r"^ready +(http://\S+)", re.MULTILINE)
        wait_until(lambda: bool(pattern.search(self.output)), timeout_s)
        found = pattern.search(self.output)
        assert found is not None
        return found[1]

    def engine(self) -> int:
        """Process id of the engine."""
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        wait_until(lambda: bool(children.read_text().split()))
        (pid,) = children.read_text().split()
        return int(pid)

    def close(self) -> None:
        """End everything."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(20)
        self._reader.join(20)
        assert self.child.stderr is not None
        self.child.stderr.close()


def is_gone(pid: int) -> bool:
    """Whether a process is no more; a zombie that nobody waits for counts as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"
