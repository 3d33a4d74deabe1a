"""Python imports this by itself where it is on the path; it writes down what a process reaches for.

One line per event into $AUDIT_FOLDER/PID; see PEP 578 for what the events are.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_log = os.open(
    f"{os.environ['AUDIT_FOLDER']}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
)
_WATCHED = frozenset({
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.gethostbyaddr", "socket.sendto", "subprocess.Popen", "os.system", "os.exec", "os.fork",
    "os.forkpty", "os.posix_spawn", "os.spawn", "os.mkdir", "os.rename", "os.remove", "os.link",
    "os.symlink", "os.truncate", "shutil.move", "tempfile.mkstemp", "tempfile.mkdtemp",
    "pickle.find_class", "urllib.Request", "ctypes.dlopen",
})  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & _WRITES or path == os.devnull:
            return
    elif event not in _WATCHED:
        return
    os.write(_log, f"{event} {arguments!r}\n".encode())


os.write(_log, b"watching\n")
sys.addaudithook(_watch)
