"""What a running server reaches for: one local port, and nothing else of the machine or the net.

Both processes write down their own audit events (PEP 578); the kernel's tables tell the rest.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import wait_until
from server_process import HERE, Process, is_gone

LISTENING = "0A"


@dataclass(frozen=True)
class Watched:
    """A server whose processes are watched, and the folder where all that it may use lies."""

    process: Process
    url: str
    pids: dict[str, int]
    home: Path
    log: Path

    def events(self, name: str) -> list[str]:
        """What a process has reached for since its start."""
        return (self.log / str(self.pids[name])).read_text().splitlines()

    def files(self) -> dict[str, int]:
        """Every file that the server might write, and its size."""
        return {str(path): path.stat().st_size for path in self.home.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, served_model: Path) -> Iterator[Watched]:
    home, log = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("audit")
    (home / "tmp").mkdir()
    names = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR")
    process = Process(
        ["-m", "runtime", "serve", str(served_model), "--port", "0", "--kv-cache-gib", "0.05",
         "--served-model-name", "tiny"],
        first_on_path=str(HERE / "audit"),
        AUDIT_FOLDER=str(log),
        TMPDIR=str(home / "tmp"),
        OMP_NUM_THREADS="1",
        PYTHONDONTWRITEBYTECODE="1",
        **{name: str(home) for name in names},
    )  # fmt: skip
    try:
        url = process.url(180)
        pids = {"front": process.child.pid, "engine": process.engine()}
        yield Watched(process, url, pids, home, log)
    finally:
        process.close()


def sockets(pid: int) -> dict[str, list[list[str]]]:
    """Kernel's lines of a process's sockets, by protocol."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found: dict[str, list[list[str]]] = {}
    places = {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "raw": 9, "raw6": 9, "unix": 6}
    for protocol, place in places.items():
        path = Path(f"/proc/{pid}/net/{protocol}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        found[protocol] = [line.split() for line in lines if line.split()[place] in inodes]
    return found


def test_one_local_port_is_open_and_no_other_socket_has_a_name(watched: Watched) -> None:
    port = int(watched.url.rpartition(":")[2])
    local = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    front = sockets(watched.pids["front"])
    listening = [row[1] for row in front.pop("tcp") if row[3] == LISTENING]
    assert listening == [f"{local}:{port:04X}"]
    engine = sockets(watched.pids["engine"])
    assert engine.pop("unix"), "the engine has no way to the front end"
    assert not any(engine.values()), engine
    # A unix socket's name would be an eighth column.
    assert all(len(row) == 7 for row in front.pop("unix"))
    assert all(len(row) == 7 for row in sockets(watched.pids["engine"])["unix"])
    assert not any(front.values()), front


def ask_for_everything(url: str) -> None:
    """Requests of every kind, no two alike, and some that want more than they may have."""
    far = "http://192.0.2.1/canary"  # an address that is nobody's
    picture = {"type": "image_url", "image_url": {"url": far}}
    with httpx.Client(base_url=url, timeout=60) as client:

        def post(path: str, **body: Any) -> int:
            return client.post(path, json=body).status_code

        for path in ("/", "/health", "/v1/models", "/metrics", "/version", "/status",
                     "/openapi.json"):  # fmt: skip
            assert client.get(path).status_code == 200
        for number in range(40):
            text = f"once upon {number} times"
            chat = [{"role": "user", "content": text}]
            fields: dict[str, Any] = {"max_tokens": 3, "stream": number % 2 == 0}
            fields |= {"cache_salt": f"s{number}", "user": f"u{number}", "seed": number}
            assert post("/v1/completions", prompt=text, stop=f"x{number}", **fields) == 200
            assert post("/v1/chat/completions", messages=chat, **fields) == 200
            assert post("/tokenize", prompt=text) == 200
        assert post("/detokenize", tokens=[5, 6, 7]) == 200
        for content in ([picture], [{"type": "text", "text": "x"}, picture], far):
            post("/v1/chat/completions", messages=[{"role": "user", "content": content}])
        for body in ({"model": far}, {"prompt": far, "lora": far}, {"prompt": f"<img src={far}>"}):
            post("/v1/completions", **body)
        post("/v1/chat/completions", messages=[], tools=[{"type": "mcp", "server_url": far}])
        client.post("/v1/completions", content=b"\x80\x04\x95cos\nsystem\n.")  # a pickle
        client.get("/v1/models/../../etc/passwd")
        assert client.get("/health").status_code == 200


def test_requests_reach_no_host_no_file_and_no_other_program(watched: Watched) -> None:
    before = {name: watched.events(name) for name in watched.pids}
    assert all(events[0] == "watching" for events in before.values())
    assert any(event.startswith("subprocess.Popen") for event in before["front"])
    assert any(event.startswith("socket.bind ") for event in before["front"])
    for events in before.values():
        assert not [e for e in events if e.startswith(("socket.connect", "pickle", "urllib"))]
    files = watched.files()
    ask_for_everything(watched.url)
    for name, events in before.items():
        assert watched.events(name)[len(events) :] == []
    assert watched.files() == files


def test_nothing_lies_about_after_a_kill(watched: Watched) -> None:
    """The last of this file: it ends the server."""
    files = watched.files()
    os.kill(watched.pids["engine"], signal.SIGKILL)
    assert watched.process.child.wait(20) == 1
    wait_until(lambda: all(map(is_gone, watched.pids.values())))
    assert watched.files() == files
    port = int(watched.url.rpartition(":")[2])
    socket.create_server(("127.0.0.1", port)).close()
